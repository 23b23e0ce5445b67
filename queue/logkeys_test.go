package queue_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logKeys are the keys of the library's log lines: whoever searches logs finds the same
// thing under the same name, whatever package has written it. Those of a consumer's
// lines are told in the package's doc.
var logKeys = map[string]string{
	"queue":     "name of the queue that it's about; of a redrive the dead-letter queue",
	"backend":   "its system",
	"address":   "where it is",
	"id":        "of the message",
	"err":       "what went wrong",
	"stack":     "of a panic",
	"attempt":   "of the delivery",
	"failures":  "so far, with this one",
	"took":      "how long the handler ran",
	"in":        "how long until it's tried again, or comes back",
	"gives_up":  "when a message is given up: an age, or how long until then",
	"to":        "the queue that messages go to: of dead letters, of a redrive",
	"key":       "of idempotency, or the ordering key",
	"op":        "of a store",
	"kind":      "of a settlement",
	"what":      "was done, or differs",
	"value":     "that something was set to",
	"for":       "how long it stays so",
	"actor":     "who has asked for it",
	"reason":    "that they gave",
	"operation": "the id of a redrive",
	"moved":     "messages", "failed": "messages", "came_back": "messages",
	"count":               "of what the line says",
	"concurrency":         "the limit",
	"delay":               "of a queue",
	"retention":           "of a queue",
	"max_bytes":           "of a message",
	"max_failures":        "as set",
	"broker_max_attempts": "of the broker's own dead-letter policy",
	"assumed":             "settings",
	"subscription":        "of Pub/Sub", "topic": "of Pub/Sub",
	"filter": "of a subscription", "retry_policy": "of a subscription",
	"queues": "several", "only": "patterns",
	"name": "of a circuit breaker", "state": "of it", "was": "its state before",
}

// levels are slog's functions, with the position of their first key.
var levels = map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "With": 0}

func TestLogLinesHaveTheSameKeysEverywhere(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, dir := range []string{"queue", "middleware", "memory", "sqs", "pubsub", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "queuetest") {
				return err
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, key := range keysOf(n) {
					used[key] = true
					assert.NotEmpty(t, logKeys[key], "%s: is %q a new key, or another name for one that's there?", fset.Position(n.Pos()), key)
				}
				return true
			})
			return nil
		})
		require.NoError(t, err)
	}
	for key := range logKeys {
		assert.True(t, used[key], "nobody uses the key %q", key)
	}
}

// keysOf are those that a call to a logger has, or what gathers arguments for one.
func keysOf(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.AssignStmt:
		for i, to := range n.Lhs {
			if list, ok := n.Rhs[min(i, len(n.Rhs)-1)].(*ast.CompositeLit); ok && isArguments(to) {
				return literals(list.Elts)
			}
		}
	case *ast.CallExpr:
		switch f := n.Fun.(type) {
		case *ast.SelectorExpr:
			if first, ok := levels[f.Sel.Name]; ok && isLogger(f.X) && len(n.Args) > first {
				return literals(n.Args[first:])
			}
		case *ast.Ident:
			if f.Name == "append" && len(n.Args) > 2 && isArguments(n.Args[0]) {
				return literals(n.Args[1:])
			}
		}
	}
	return nil
}

// isArguments tells a variable by its name.
func isArguments(x ast.Expr) bool {
	v, ok := x.(*ast.Ident)
	return ok && (v.Name == "args" || v.Name == "attrs")
}

// isLogger tells by its name: log, Logger, logger(), log().
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.CallExpr:
		return isLogger(x.Fun)
	case *ast.SelectorExpr:
		return isLogger(x.Sel)
	case *ast.Ident:
		return strings.HasPrefix(strings.ToLower(x.Name), "log")
	}
	return false
}

// literals are the keys of key, value, key, value.
func literals(args []ast.Expr) []string {
	var keys []string
	for i := 0; i < len(args); i += 2 {
		if lit, ok := args[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				keys = append(keys, s)
			}
		}
	}
	return keys
}
