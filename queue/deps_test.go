package queue_test

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/anyqueue/anyqueue"

// rule says what a package may depend on, the standard library aside. A name
// that ends in "/..." stands for a package and all below it.
type rule struct {
	// own are the packages of this module that it may reach, directly or not.
	own []string
	// direct are the foreign packages that it may import itself.
	direct []string
	// linked are the foreign modules that a program gets with it; nil: whatever
	// comes with those of direct.
	linked []string
	// never are packages that it mustn't reach although others of the rule
	// would allow them.
	never []string
}

const (
	uuid = "github.com/google/uuid"
	aws  = "github.com/aws/aws-sdk-go-v2"
)

// rules has every package of the module, or a folder of them. A new one needs a
// line here: that's where it's decided on what it may stand.
var rules = map[string]rule{
	"queue":                {direct: []string{uuid}, linked: []string{uuid}},
	"queue/queuetest":      {own: []string{"queue"}, linked: []string{uuid}},
	"queue/config":         {own: []string{"queue", "middleware"}, direct: []string{"go.yaml.in/yaml/v3"}, linked: []string{uuid, "go.yaml.in/yaml/v3"}},
	"queue/admin":          {own: []string{"queue", "queue/config", "middleware"}, direct: []string{uuid}, linked: []string{uuid, "go.yaml.in/yaml/v3"}},
	"memory":               {own: []string{"queue", "internal/..."}, linked: []string{uuid}},
	"middleware":           {own: []string{"queue"}, linked: []string{uuid}},
	"middleware/otelqueue": {own: []string{"queue"}, direct: []string{"go.opentelemetry.io/otel/..."}},
	"internal/...":         {own: []string{"queue", "internal/..."}, linked: []string{uuid}},
	// For tests alone: a client needs more than the backend.
	"internal/pubsubtest": {direct: []string{"cloud.google.com/go/pubsub/v2/...", "google.golang.org/api/option", "google.golang.org/grpc/..."}},
	"sqs": {
		own:    []string{"queue", "internal/..."},
		direct: []string{uuid, aws + "/...", "github.com/aws/smithy-go/..."},
		never:  []string{aws + "/config"}, // doubles a small program
	},
	"sqs/awsclient": {own: []string{"queue", "sqs", "internal/..."}, direct: []string{aws + "/..."}},
	// Gives out ready clients, so that tests needn't build them.
	"sqs/sqstest": {
		own: []string{"queue", "internal/..."}, direct: []string{uuid, aws + "/...", "github.com/aws/smithy-go/..."},
		never: []string{aws + "/config"},
	},
	"pubsub": {
		own: []string{"queue", "internal/..."},
		direct: []string{
			"cloud.google.com/go/pubsub/v2/...", "cloud.google.com/go/iam/apiv1/iampb", "google.golang.org/api/option", "google.golang.org/api/iterator", "google.golang.org/api/transport", "google.golang.org/grpc/...",
			"google.golang.org/protobuf/...", "google.golang.org/genproto/...", "github.com/googleapis/gax-go/v2/...",
		},
	},
	// Of use with Google's own metrics only, and larger than the rest.
	"pubsub/cloudmonitoring": {own: []string{"queue", "pubsub", "internal/..."}, direct: []string{"google.golang.org/api/..."}},
	"examples/sqsserver":     {own: []string{"sqs/sqstest", "queue", "internal/..."}, direct: []string{uuid, aws + "/service/sqs"}},
	// For tests alone.
	"examples/internal/testbed": {
		own:    []string{"queue/...", "middleware/...", "memory", "sqs/...", "pubsub/...", "internal/...", "examples/..."},
		direct: []string{uuid, aws + "/service/sqs", "github.com/stretchr/testify/..."},
	},
	"examples/...": {
		own:    []string{"queue/...", "memory", "middleware/...", "sqs/...", "pubsub/...", "internal/...", "examples/..."},
		direct: []string{uuid},
	},
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath                               string
	Imports, Deps, TestImports, XTestImports []string
}

// modulePackages are the packages of this module.
var modulePackages = sync.OnceValues(func() ([]goPackage, error) {
	// -e, as a package that doesn't compile is another test's finding.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

func TestPackagesImportOnlyWhatTheirRuleAllows(t *testing.T) {
	t.Parallel()
	packages, err := modulePackages()
	require.NoError(t, err)
	require.Greater(t, len(packages), 4)
	for _, p := range packages {
		name, own := ownName(p.ImportPath)
		require.True(t, own, p.ImportPath)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, ok := ruleOf(name)
			require.True(t, ok, "the package %s has no line in rules: decide what it may import", name)
			for _, broken := range r.check(p) {
				t.Error(broken)
			}
		})
	}
}

// The rules themselves are tried on packages that break them.
func TestRuleFindsWhatBreaksIt(t *testing.T) {
	t.Parallel()
	own := func(name string) string { return modulePath + "/" + name }
	tests := map[string]struct {
		name string
		p    goPackage
		want []string
	}{
		"queue imports a backend": {"queue", goPackage{Deps: []string{"fmt", own("memory")}}, []string{"reaches memory"}},
		"queue imports an SDK": {"queue", goPackage{Imports: []string{aws + "/service/sqs"}, Deps: []string{aws + "/service/sqs"}},
			[]string{"imports " + aws + "/service/sqs", "links " + aws + "/service/sqs"}},
		"testify outside of tests":         {"middleware", goPackage{Imports: []string{"github.com/stretchr/testify/assert"}}, []string{"imports github.com/stretchr/testify/assert"}},
		"testify in tests":                 {"middleware", goPackage{TestImports: []string{"github.com/stretchr/testify/assert"}}, nil},
		"testify in the suite's own tests": {"queue/queuetest", goPackage{XTestImports: []string{"github.com/stretchr/testify/assert"}}, nil},
		"clouds in tests of otelqueue":     {"middleware/otelqueue", goPackage{XTestImports: []string{own("sqs/sqstest"), own("pubsub"), own("internal/pubsubtest")}}, nil},
		"a cloud in otelqueue":             {"middleware/otelqueue", goPackage{Deps: []string{own("sqs")}}, []string{"reaches sqs"}},
		"memory in tests of middleware":    {"middleware", goPackage{XTestImports: []string{own("memory")}}, nil},
		"middleware imports a backend":     {"middleware", goPackage{Deps: []string{own("memory")}}, []string{"reaches memory"}},
		"a backend imports another":        {"sqs", goPackage{Deps: []string{own("memory")}}, []string{"reaches memory"}},
		"a backend imports middleware":     {"memory", goPackage{Deps: []string{own("middleware")}}, []string{"reaches middleware"}},
		"a backend imports config":         {"pubsub", goPackage{Deps: []string{own("queue/config")}}, []string{"reaches queue/config"}},
		"another one imports yaml":         {"memory", goPackage{Imports: []string{"go.yaml.in/yaml/v3"}}, []string{"imports go.yaml.in/yaml/v3"}},
		"sqs imports the AWS config": {"sqs", goPackage{Imports: []string{aws + "/config"}, Deps: []string{aws + "/config"}},
			[]string{"reaches " + aws + "/config"}},
		"awsclient does":          {"sqs/awsclient", goPackage{Imports: []string{aws + "/config"}, Deps: []string{aws + "/config"}}, nil},
		"examples are imported":   {"queue/config", goPackage{Deps: []string{own("examples/x")}}, []string{"reaches examples/x"}},
		"examples in tests":       {"queue/config", goPackage{XTestImports: []string{own("examples/x")}}, []string{"reaches examples/x"}},
		"examples import another": {"examples/blast", goPackage{Deps: []string{own("examples/internal/x")}}, nil},
		"the standard library":    {"queue", goPackage{Imports: []string{"net/http"}, Deps: []string{"net/http", "vendor/golang.org/x/net/http2/hpack"}}, nil},
		"a name that only begins alike": {"memory", goPackage{Deps: []string{own("queue2"), own("internalx")}},
			[]string{"reaches queue2", "reaches internalx"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.p.ImportPath = own(tt.name)
			r, ok := ruleOf(tt.name)
			require.True(t, ok)
			got := r.check(tt.p)
			require.Len(t, got, len(tt.want), "%q", got)
			for i, want := range tt.want {
				assert.Contains(t, got[i], want)
			}
		})
	}
	_, ok := ruleOf("brandnew")
	assert.False(t, ok, "a package needs a rule")
	_, ok = ruleOf("queue/brandnew")
	assert.False(t, ok, "the rule of a package isn't for those below it")
}

// What go list says of imports, the linker confirms: a program that uses queue
// alone carries no other module but uuid.
func TestProgramWithQueueAloneLinksNothingElse(t *testing.T) {
	t.Parallel()
	info, err := queueProgram()
	require.NoError(t, err)
	linked := []string{}
	for _, m := range info.Deps {
		linked = append(linked, m.Path)
	}
	assert.Contains(t, linked, modulePath)
	assert.Subset(t, []string{modulePath, uuid}, linked)
}

// queueProgram builds a program that uses queue, and reads what it was built of.
var queueProgram = sync.OnceValues(func() (*buildinfo.BuildInfo, error) {
	dir, err := os.MkdirTemp("", "deps")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only litter is left
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "main")
	const program = `package main

import "` + modulePath + `/queue"

func main() {
	c, err := queue.NewConsumer(nil, nil, nil)
	println(c, err)
}
`
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-o", binary, source)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New("go build: " + err.Error() + "\n" + string(out))
	}
	return buildinfo.ReadFile(binary)
})

// ruleOf finds the rule of a package: its own, or that of the folder.
func ruleOf(name string) (rule, bool) {
	if r, ok := rules[name]; ok {
		return r, true
	}
	for folder, r := range rules {
		if matches(folder, name) {
			return r, true
		}
	}
	return rule{}, false
}

// check returns what p does that its rule doesn't allow.
func (r rule) check(p goPackage) []string {
	name, _ := ownName(p.ImportPath)
	var broken []string
	for _, d := range p.Imports {
		if foreign(d) && !matchesAny(r.direct, d) {
			broken = append(broken, name+" imports "+d)
		}
	}
	for _, d := range p.Deps {
		switch dep, own := ownName(d); {
		case own && !matchesAny(r.own, dep):
			broken = append(broken, name+" reaches "+dep)
		case slices.Contains(r.never, d):
			broken = append(broken, name+" reaches "+d)
		case foreign(d) && r.linked != nil && !slices.ContainsFunc(r.linked, func(m string) bool { return matches(m+"/...", d) }):
			broken = append(broken, name+" links "+d)
		}
	}
	if matches("examples/...", name) {
		return broken
	}
	for _, d := range slices.Concat(p.TestImports, p.XTestImports) {
		if dep, own := ownName(d); own && matches("examples/...", dep) {
			broken = append(broken, name+" reaches "+dep+" in its tests")
		}
	}
	return broken
}

// ownName is the path of a package within this module.
func ownName(path string) (string, bool) { return strings.CutPrefix(path, modulePath+"/") }

// foreign reports whether a package is neither of the standard library, whose
// paths begin with a word without a dot, nor of this module.
func foreign(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	_, own := ownName(path)
	return strings.Contains(first, ".") && !own
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func matches(pattern, path string) bool {
	folder, all := strings.CutSuffix(pattern, "/...")
	return path == folder || all && strings.HasPrefix(path, folder+"/")
}
