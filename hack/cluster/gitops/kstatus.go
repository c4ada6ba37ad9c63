package main

import (
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// judge prints kstatus' verdict about each object, a line each: InProgress, Current, Failed or Terminating.
func judge() error {
	var objects unstructured.UnstructuredList
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return fmt.Errorf("read objects: %w", err)
	}
	for i := range objects.Items {
		verdict, err := status.Compute(&objects.Items[i])
		if err != nil {
			return fmt.Errorf("judge %s: %w", objects.Items[i].GetName(), err)
		}
		fmt.Println(verdict.Status)
	}
	return nil
}
