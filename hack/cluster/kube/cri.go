package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// callTimeout bounds every call but pulls, which take as long as an image is large.
const callTimeout = 30 * time.Second

// newCRICommand is the cluster's way to talk to its container runtime as the kubelet does: an image
// pulled so is known to the kubelet, and its compressed layers are discarded once unpacked.
func newCRICommand() *cobra.Command {
	command := &cobra.Command{Use: "cri", Short: "Talk to the node's container runtime.", SilenceUsage: true}
	endpoint := command.PersistentFlags().String("endpoint", os.Getenv("CONTAINER_RUNTIME_ENDPOINT"), "the runtime's socket, as unix://PATH")
	command.AddCommand(
		&cobra.Command{Use: "images", Short: "List the node's images, a reference a line.", Args: cobra.NoArgs, RunE: withImages(endpoint, listImages)},
		&cobra.Command{Use: "pull REFERENCE", Short: "Pull an image.", Args: cobra.ExactArgs(1), RunE: withImages(endpoint, pullImage)},
		&cobra.Command{Use: "remove-image REFERENCE", Short: "Remove an image from the node.", Args: cobra.ExactArgs(1), RunE: withImages(endpoint, removeImage)},
		&cobra.Command{Use: "remove-pods", Short: "Stop and remove every pod.", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return removePods(cmd.Context(), *endpoint)
		}},
	)
	return command
}

type imageAction func(ctx context.Context, service cri.ImageManagerService, references []string) error

func withImages(endpoint *string, action imageAction) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, references []string) error {
		service, err := criclient.NewRemoteImageService(cmd.Context(), *endpoint, callTimeout, nil, false)
		if err != nil {
			return fmt.Errorf("connect to %s: %w", *endpoint, err)
		}
		return action(cmd.Context(), service, references)
	}
}

func listImages(ctx context.Context, service cri.ImageManagerService, _ []string) error {
	images, err := service.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, image := range images {
		for _, tag := range image.RepoTags {
			fmt.Println(tag)
		}
	}
	return nil
}

func pullImage(ctx context.Context, service cri.ImageManagerService, references []string) error {
	_, err := service.PullImage(ctx, &runtimeapi.ImageSpec{Image: references[0]}, nil, nil)
	return err
}

func removeImage(ctx context.Context, service cri.ImageManagerService, references []string) error {
	return service.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: references[0]})
}

// removePods goes on after a pod that cannot be removed, and reports the last such error.
func removePods(ctx context.Context, endpoint string) error {
	service, err := criclient.NewRemoteRuntimeService(ctx, endpoint, callTimeout, nil, false)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	pods, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, pod := range pods {
		if failure := removePod(ctx, service, pod.Id); failure != nil {
			err = fmt.Errorf("remove pod %s/%s: %w", pod.Metadata.Namespace, pod.Metadata.Name, failure)
		}
	}
	return err
}

// removePod kills the containers first: stopping a sandbox would wait out their grace periods.
func removePod(ctx context.Context, service cri.RuntimeService, pod string) error {
	containers, err := service.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: pod})
	if err != nil {
		return err
	}
	for _, container := range containers {
		if err := service.StopContainer(ctx, container.Id, 0); err != nil {
			return err
		}
	}
	if err := service.StopPodSandbox(ctx, pod); err != nil {
		return err
	}
	return service.RemovePodSandbox(ctx, pod)
}
