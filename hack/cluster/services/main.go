// Command services holds what the embedded cluster has beside Kubernetes: its DNS server and its image registry.
//
// As in kube, the name the binary is called by chooses. Both are the real programs with only those
// plugins and storage drivers that the cluster uses: the dozens of others, which bring the libraries
// of three clouds, would take more than half of the time to build them.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "coredns":
		coremain.Run()
	case "registry":
		if err := registry.RootCmd.Execute(); err != nil {
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "no such service: %q\n", name)
		os.Exit(2)
	}
}
