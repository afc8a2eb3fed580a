package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"serve":      serve,      // registry process
		"pull":       pullOnce,   // careen's puller in a process of its own
		"containerd": pullPlain,  // containerd's own pull, embedded in the same way
		"layout":     makeLayout, // one image for another program
		"run":        run,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench run [-careen FILE] [-only cold,memory,warm,idle,size,scale] [-rounds N] [-runs N] [-short] [-work DIR]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
