package main

import (
	"fmt"
	"io"
	"os"

	"github.com/careen-project/careen/integration/ipa/images"
	"github.com/careen-project/careen/integration/registry"
)

func main() {
	s := &registry.Stage{}
	defer s.End()
	reg := registry.Start(s)
	images.Push(s, reg)
	fmt.Println(reg.Host)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
