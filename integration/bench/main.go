package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"serve": serve, // registry process
		"pull":  pullOnce,
		"run":   run,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench run [-rounds N] [-work DIR] [-only cold|scale]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
