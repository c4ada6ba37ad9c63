// Command pause holds a pod's network namespace: it sleeps until it is told to go.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// In a pod whose containers share its process namespace it inherits orphans: the kernel reaps
	// the children of a process that ignores their signal.
	signal.Ignore(syscall.SIGCHLD)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	<-told
}
