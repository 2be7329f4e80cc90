// Parses Dockerfiles with BuildKit's own parser and runs its build checks, as `docker build --check` does,
// but with neither an engine nor a registry. Exits 1 if any file has an error or a warning.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/opencontainers/go-digest"
)

// noRegistry answers for every base image with an empty configuration.
type noRegistry struct{}

func (noRegistry) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := []byte(`{"architecture":"amd64","os":"linux","config":{}}`)
	return ref, digest.FromBytes(config), config, nil
}

func lint(path string, args map[string]string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var warnings []error
	_, _, _, _, err = dockerfile2llb.Dockerfile2LLB(context.Background(), source, dockerfile2llb.ConvertOpt{
		Config:       dockerui.Config{BuildArgs: args},
		MetaResolver: noRegistry{},
		Warn: func(rule, _, _, message string, at []parser.Range) {
			line := 0
			if len(at) > 0 {
				line = at[0].Start.Line
			}
			warnings = append(warnings, fmt.Errorf("line %d: %s: %s", line, rule, message))
		},
	})
	return errors.Join(append(warnings, err)...)
}

func main() {
	failed := false
	for _, path := range os.Args[1:] {
		for _, features := range []string{"", "cuda"} {
			if err := lint(path, map[string]string{"FEATURES": features}); err != nil {
				fmt.Printf("%s (FEATURES=%q): %v\n", path, features, err)
				failed = true
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}
