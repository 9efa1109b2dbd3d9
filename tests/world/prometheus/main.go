// Reads rule files of Prometheus as Prometheus does, and expressions from standard input, one a line.
package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	failed := false
	complain := func(where string, err error) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", where, err)
		failed = true
	}
	read := parser.NewParser(parser.Options{})
	for _, file := range os.Args[1:] {
		_, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, read, slog.Default())
		for _, err := range errs {
			complain(file, err)
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if _, err := read.ParseExpr(lines.Text()); err != nil {
			complain(lines.Text(), err)
		}
	}
	if failed {
		os.Exit(1)
	}
}
