// Command gitops says what GitOps tools make of objects, with the libraries that the tools themselves are built with.
//
//	gitops kstatus    reads a v1 List, and prints a word for each object, by which Flux knows whether it is done
//	gitops lua        reads pairs of a script and an object, and prints what the scripts return in Argo CD's Lua
//
// Both read JSON from standard input.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func() error{"kstatus": judge, "lua": runScripts}
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: gitops kstatus | lua")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](); err != nil {
		fmt.Fprintf(os.Stderr, "gitops: %v\n", err)
		os.Exit(1)
	}
}
