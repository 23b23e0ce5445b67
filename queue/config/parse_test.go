package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

var update = flag.Bool("update", false, "write what Parse says of the files in testdata/wrong beside them")

// The texts are what an operator sees: each wrong file has them beside it.
func TestWrongFilesAreRefusedWithEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	env := environment{"BAD": "lots", "A": "1h"}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			f, err := config.Parse(filepath.Base(path), data, env.lookup)
			if err == nil { // it's wrong for the services that it names
				_, err = config.OpenFile(f, untouched(t), nil)
			} else {
				assert.Nil(t, f)
			}
			require.Error(t, err)
			assert.ErrorIs(t, err, queue.ErrInvalid)
			listed, ok := errors.AsType[*config.Error](err)
			require.True(t, ok, "%T", err)
			assert.Equal(t, len(listed.Problems), strings.Count(err.Error(), "\n")+1, "one line for each problem")

			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(err.Error()+"\n"), 0o600))
			}
			want, err2 := os.ReadFile(golden)
			require.NoError(t, err2)
			assert.Equal(t, string(want), err.Error()+"\n")
		})
	}
}

// untouched are backends of which nothing but the system is ever asked.
func untouched(t *testing.T) config.Backends {
	return config.Backends{"memory": untouchable{t, "memory"}, "sqs": untouchable{t, "aws_sqs"}, "pubsub": untouchable{t, "gcp_pubsub"}}
}

func TestErrorsComeInTheSameOrderEachTime(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/wrong/unknown-keys.yaml")
	require.NoError(t, err)
	_, first := config.Parse("f", data, nil)
	for range 20 {
		_, again := config.Parse("f", data, nil)
		require.EqualError(t, again, first.Error())
	}
}

type environment map[string]string

func (e environment) lookup(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, err := config.Parse("queues.yaml", []byte(text), nil)
	require.NoError(t, err)
	return f
}

func TestEverySettingIsRead(t *testing.T) {
	t.Parallel()
	f := parse(t, `
backend: sqs
ensure: TRUE
limits:
  crm: {concurrency: 40, rate: 100/s}
queues:
  orders:
    backend: pubsub
    address: projects/p/topics/orders
    ordered: true
    concurrency: 20
    max_hold: 50
    lease: 1m
    retention: 4d
    tags: {team: crm, cost-center: 12, "on": true, note:  ""}
    limit: crm
    rate: 90/m
    timeout: 30s
    drain_timeout: 15s
    receive_grace: 3s
    max_extension: 1d12h
    retry: {min: 2s, max: 10m, factor: 1.5, jitter: 0.25, in_place: 3}
    dead_letter: {queue: orders-dlq, max_age: 2d, max_failures: 5, on_exhausted: block}
  mails: {delay: 500ms, drain_timeout: 0s, receive_grace: off, retry: {jitter: 0}, dead_letter: {queue: orders-dlq, max_age: off}}
  orders-dlq: {ordered: true, retention: 10d}
`)
	assert.True(t, f.Ensure)
	assert.Equal(t, "queues.yaml", f.Name)
	assert.Equal(t, []*config.Limit{{Name: "crm", Concurrency: 40, Rate: 100}}, f.Limits)
	assert.Equal(t, []*config.Queue{
		{
			Name: "orders", Backend: "pubsub", Address: "projects/p/topics/orders", Ordered: true,
			Concurrency: 20, MaxHold: 50, Lease: time.Minute, Limit: "crm", Rate: 1.5,
			Retention: 4 * 24 * time.Hour, Tags: map[string]string{"team": "crm", "cost-center": "12", "on": "true", "note": ""},
			Timeout: 30 * time.Second, DrainTimeout: 15 * time.Second, ReceiveGrace: 3 * time.Second, MaxExtension: 36 * time.Hour,
			Retry: config.Retry{Min: 2 * time.Second, Max: 10 * time.Minute, Factor: 1.5, Jitter: 0.25, InPlace: 3},
			DeadLetter: &config.DeadLetter{
				Queue: "orders-dlq", MaxAge: 48 * time.Hour, MaxFailures: 5, OnExhausted: middleware.Block,
			},
		},
		{
			Name: "mails", Backend: "sqs", Delay: 500 * time.Millisecond, DrainTimeout: -1, ReceiveGrace: -1, Retry: config.Retry{Jitter: -1},
			DeadLetter: &config.DeadLetter{Queue: "orders-dlq", MaxAge: -1},
		},
		{Name: "orders-dlq", Backend: "sqs", Ordered: true, Retention: 10 * 24 * time.Hour},
	}, f.Queues)
	assert.Same(t, f.Queues[1], f.Queue("mails"))
	assert.Nil(t, f.Queue("nope"))
}

func TestQueuesInheritTheDefaultsKeyByKey(t *testing.T) {
	t.Parallel()
	f := parse(t, `
queues:
  one: {}
  two: {concurrency: 3, retry: {max: 1m}, limit: off, rate: off, timeout: off, delay: off}
  three: {dead_letter: {queue: three-dlq, max_failures: off}}
  four: {dead_letter: off}
  five:
  three-dlq: {}
  dead: {}
defaults:
  concurrency: 7
  delay: 1s
  limit: all
  rate: 10/s
  timeout: 5s
  retry: {min: 2s, max: 3m}
  dead_letter: {queue: dead, max_age: 1h, max_failures: 9}
limits:
  all: {concurrency: 100}
backend: memory
`)
	one := config.Queue{
		Name: "one", Backend: "memory", Concurrency: 7, Delay: time.Second, Limit: "all", Rate: 10, Timeout: 5 * time.Second,
		Retry:      config.Retry{Min: 2 * time.Second, Max: 3 * time.Minute},
		DeadLetter: &config.DeadLetter{Queue: "dead", MaxAge: time.Hour, MaxFailures: 9},
	}
	assert.Equal(t, &one, f.Queue("one"))
	assert.Equal(t, &config.Queue{
		Name: "two", Backend: "memory", Concurrency: 3,
		Retry:      config.Retry{Min: 2 * time.Second, Max: time.Minute},
		DeadLetter: one.DeadLetter,
	}, f.Queue("two"))
	assert.Equal(t, &config.DeadLetter{Queue: "three-dlq", MaxAge: time.Hour}, f.Queue("three").DeadLetter)
	assert.Nil(t, f.Queue("four").DeadLetter)
	assert.Equal(t, one.DeadLetter, f.Queue("five").DeadLetter, "a queue without a value is like one with {}")
	assert.NotSame(t, f.Queue("one").DeadLetter, f.Queue("five").DeadLetter)
	assert.Nil(t, f.Queue("dead").DeadLetter, "a dead-letter queue doesn't inherit a policy")
	assert.Nil(t, f.Queue("three-dlq").DeadLetter, "a dead-letter queue doesn't inherit a policy")
}

func TestQueuesInheritWhatTheBrokerKeepsAndHowTheyWait(t *testing.T) {
	t.Parallel()
	f := parse(t, `
backend: memory
defaults:
  retention: 7d
  tags: {team: crm, env: prod}
  max_hold: 5
  receive_grace: 2s
  retry: {factor: 3, jitter: 0}
  dead_letter: {queue: dead}
queues:
  one: {}
  two: {retention: 1d, tags: {env: test, part: two}, max_hold: 6, receive_grace: 0s, retry: {factor: 1}}
  three: {retention: off, tags: off, dead_letter: {queue: kept}}
  dead: {}
  kept: {retention: 14d}
`)
	crm := map[string]string{"team": "crm", "env": "prod"}
	const week = 7 * 24 * time.Hour
	retry := config.Retry{Factor: 3, Jitter: -1}
	assert.Equal(t, []*config.Queue{
		{Name: "one", Backend: "memory", Retention: week, Tags: crm, MaxHold: 5, ReceiveGrace: 2 * time.Second, Retry: retry, DeadLetter: &config.DeadLetter{Queue: "dead"}},
		{
			Name: "two", Backend: "memory", Retention: week / 7, Tags: map[string]string{"team": "crm", "env": "test", "part": "two"}, MaxHold: 6, ReceiveGrace: -1,
			Retry: config.Retry{Factor: 1, Jitter: -1}, DeadLetter: &config.DeadLetter{Queue: "dead"},
		},
		{Name: "three", Backend: "memory", MaxHold: 5, ReceiveGrace: 2 * time.Second, Retry: retry, DeadLetter: &config.DeadLetter{Queue: "kept"}},
		{Name: "dead", Backend: "memory", Tags: crm, MaxHold: 5, ReceiveGrace: 2 * time.Second, Retry: retry},
		{Name: "kept", Backend: "memory", Retention: 2 * week, Tags: crm, MaxHold: 5, ReceiveGrace: 2 * time.Second, Retry: retry},
	}, f.Queues, "a dead-letter queue doesn't inherit how long others keep messages")
	f.Queue("one").Tags["env"] = "changed"
	assert.Equal(t, "prod", f.Queue("dead").Tags["env"], "each queue has tags of its own")
}

func TestDefaultPolicyWithoutAQueueIsForQueuesThatNameOne(t *testing.T) {
	t.Parallel()
	f := parse(t, `
backend: memory
defaults: {dead_letter: {max_failures: 4}}
queues:
  plain: {}
  careful: {dead_letter: {queue: dead}}
  dead: {}
`)
	assert.Nil(t, f.Queue("plain").DeadLetter)
	assert.Equal(t, &config.DeadLetter{Queue: "dead", MaxFailures: 4}, f.Queue("careful").DeadLetter)
}

func TestAnchorsAliasesAndMergesWork(t *testing.T) {
	t.Parallel()
	f := parse(t, `
backend: memory
queues:
  one: &std
    concurrency: &n 5
    retry: &r {min: 2s}
  two: *std
  three:
    <<: *std
    concurrency: 6
  four:
    <<: [{rate: 1/s, concurrency: *n}, {rate: 2/s, retry: *r}]
`)
	assert.Equal(t, &config.Queue{Name: "two", Backend: "memory", Concurrency: 5, Retry: config.Retry{Min: 2 * time.Second}}, f.Queue("two"))
	assert.Equal(t, &config.Queue{Name: "three", Backend: "memory", Concurrency: 6, Retry: config.Retry{Min: 2 * time.Second}}, f.Queue("three"))
	assert.Equal(t, &config.Queue{Name: "four", Backend: "memory", Concurrency: 5, Rate: 1, Retry: config.Retry{Min: 2 * time.Second}}, f.Queue("four"))
}

func TestVariablesAreReplacedInSingleValues(t *testing.T) {
	t.Parallel()
	env := environment{"BACKEND": "sqs", "EMPTY": "", "N": "12", "EVIL": "x\n  other: {}", "REGION": "eu", "ON": "true"}
	tests := map[string]struct {
		text string
		want string // the address
	}{
		"set":                        {"${REGION}", "eu"},
		"unset with a default":       {"${UNSET:-us}", "us"},
		"empty with a default":       {"${EMPTY:-us}", "us"},
		"set with a default":         {"${REGION:-us}", "eu"},
		"empty default":              {"${UNSET:-}", ""},
		"empty default beside text":  {"a${UNSET:-}", "a"},
		"empty without a default":    {"a${EMPTY}", "a"},
		"several, and text around":   {"a-${REGION}-${N}-z", "a-eu-12-z"},
		"default with punctuation":   {`"${UNSET:-https://h:1/x-y?z={}"`, "https://h:1/x-y?z={"},
		"escaped":                    {"$${REGION}", "${REGION}"},
		"escaped twice":              {"$$$$", "$$"},
		"quoted":                     {`"${REGION}"`, "eu"},
		"values aren't looked into":  {"${EVIL}", "x\n  other: {}"},
		"defaults may have a hyphen": {"${UNSET:--}", "-"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := "backend: ${BACKEND}\nensure: ${ON}\nqueues:\n  orders:\n    concurrency: ${N:-5}\n    address: " + tt.text + "\n"
			f, err := config.Parse("f", []byte(text), env.lookup)
			require.NoError(t, err)
			require.Len(t, f.Queues, 1)
			assert.Equal(t, &config.Queue{Name: "orders", Backend: "sqs", Concurrency: 12, Address: tt.want}, f.Queues[0])
			assert.True(t, f.Ensure)
		})
	}
}

func TestKeysArentExpanded(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("f", []byte("backend: memory\nqueues:\n  ${Q}: {}\n"), environment{"Q": "orders"}.lookup)
	assert.ErrorContains(t, err, `f:3:3: queues.${Q}: "${Q}" isn't 3 to 75 letters`)
}

// addFiles begins a fuzz test with files right and wrong.
func addFiles(f *testing.F) {
	for _, pattern := range []string{"testdata/wrong/*.yaml", "testdata/*.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(f, err)
		for _, path := range files {
			data, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(data)
		}
	}
}

func FuzzParse(f *testing.F) {
	addFiles(f)
	env := environment{"A": "memory", "B": "${A}"}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := config.Parse("f", data, env.lookup)
		_, again := config.Parse("f", data, env.lookup)
		if err == nil {
			require.NoError(t, again)
			require.NotEmpty(t, file.Queues)
			for _, q := range file.Queues {
				require.NoError(t, queue.CheckName(q.Name))
				require.NotEmpty(t, q.Backend)
				if dl := q.DeadLetter; dl != nil {
					require.NotNil(t, file.Queue(dl.Queue))
				}
			}
			return
		}
		require.Nil(t, file)
		require.EqualError(t, again, err.Error(), "the same file, the same errors")
		listed, ok := errors.AsType[*config.Error](err)
		require.True(t, ok)
		require.NotEmpty(t, listed.Problems)
		for _, p := range listed.Problems {
			require.NotEmpty(t, p.Reason)
			require.LessOrEqual(t, p.Line, strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+2)
		}
	})
}
