package sqstest

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	maxQueueName = 80
	fifoSuffix   = ".fifo"
	// pause is how long a purge, or the name of a deleted queue, is out of use.
	pause      = 60 * time.Second
	maxResults = 1000
)

func createQueue(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueName  string
		Attributes map[string]string
		Tags       map[string]string `json:"tags"`
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	fifo := in.Attributes["FifoQueue"] == "true"
	if err := checkQueueName(in.QueueName, fifo); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	set, err := c.changeLocked(defaults(fifo), in.Attributes, fifo)
	if err != nil {
		return nil, err
	}
	w := &writer{}
	w.object("", func() { w.string("QueueUrl", c.url(c.host, in.QueueName)) })
	if q := c.queues[in.QueueName]; q != nil {
		has := q.settings.Load().values
		for _, name := range slices.Sorted(maps.Keys(in.Attributes)) {
			if has[name] != set.values[name] {
				return nil, fail(queueNameExists, "A queue already exists with the same name and a different value for attribute %s", name)
			}
		}
		return w.b, nil
	}
	if until, ok := c.deleted[in.QueueName]; ok && time.Now().Before(until) {
		return nil, fail(queueDeleted, "You must wait 60 seconds after deleting a queue before you can create another with the same name.")
	}
	if c.isClosed() {
		return nil, fail(internalFailure, "the server is closed")
	}
	q := c.newQueue(in.QueueName, fifo, set)
	if err := c.allowedLocked(q, set, in.Attributes); err != nil {
		return nil, err
	}
	maps.Copy(q.tags, in.Tags)
	delete(c.deleted, q.name)
	c.queues[q.name] = q
	c.storeLocked(q, set)
	// Who named this queue when it wasn't there yet, or no longer, gets it now.
	for _, other := range c.queues {
		if set := other.settings.Load(); set.redrive != nil && set.redrive.target == q.arn {
			other.apply(set, q)
		}
	}
	return w.b, nil
}

func checkQueueName(name string, fifo bool) *apiError {
	if name == "" {
		return fail(missingParameter, "The request must contain the parameter QueueName.")
	}
	base, suffixed := strings.CutSuffix(name, fifoSuffix)
	good := len(name) <= maxQueueName && base != ""
	for i := range len(base) {
		good = good && (alphanumeric(base[i]) || base[i] == '-' || base[i] == '_')
	}
	switch {
	case good && fifo == suffixed:
		return nil
	case fifo:
		return fail(invalidParameter, "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.")
	}
	return fail(invalidParameter, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
}

func deleteQueue(_ context.Context, c *call) ([]byte, *apiError) {
	q, err := c.onlyQueue()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queues[q.name] != q {
		return nil, noSuchQueue()
	}
	delete(c.queues, q.name)
	c.deleted[q.name] = time.Now().Add(pause)
	for _, other := range c.queues {
		if set := other.settings.Load(); set.redrive != nil && set.redrive.target == q.arn {
			other.apply(set, nil) // what it would get stays where it is
		}
	}
	q.end()
	return []byte("{}"), nil
}

// onlyQueue is the queue of an action that has no other parameter.
func (c *call) onlyQueue() (*core, *apiError) {
	var in struct{ QueueUrl string } //nolint:revive // as it's called
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	return c.queueAt(in.QueueUrl)
}

func getQueueURL(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct{ QueueName, QueueOwnerAWSAccountId string } //nolint:revive // as it's called
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	if in.QueueName == "" {
		return nil, fail(invalidParameter, "Value for parameter QueueName is invalid. Reason: Must specify a queue name.")
	}
	if in.QueueOwnerAWSAccountId != "" && in.QueueOwnerAWSAccountId != c.opts.Account {
		return nil, noSuchQueue()
	}
	q, err := c.queueNamed(in.QueueName)
	if err != nil {
		return nil, err
	}
	w := &writer{}
	w.object("", func() { w.string("QueueUrl", c.url(c.host, q.name)) })
	return w.b, nil
}

func listQueues(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueNamePrefix, NextToken string
		MaxResults                 *int
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	var names []string
	c.mu.RLock()
	for name := range c.queues {
		if strings.HasPrefix(name, in.QueueNamePrefix) {
			names = append(names, name)
		}
	}
	c.mu.RUnlock()
	return c.page("QueueUrls", names, in.MaxResults, in.NextToken)
}

func listSources(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueUrl, NextToken string //nolint:revive // as it's called
		MaxResults          *int
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return c.page("queueUrls", c.sources(q), in.MaxResults, in.NextToken) // in lower case, indeed
}

// sources are the names of the queues whose dead-letter queue this is.
func (s *Server) sources(q *core) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for name, other := range s.queues {
		if r := other.settings.Load().redrive; r != nil && r.target == q.arn {
			names = append(names, name)
		}
	}
	return names
}

// page answers with a part of a list of queues. Only who asks for a number of
// results gets a token for the rest.
func (c *call) page(member string, names []string, most *int, token string) ([]byte, *apiError) {
	n := maxResults
	if most != nil {
		if n = *most; n < 1 || n > maxResults {
			return nil, fail(invalidParameter, "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1 and 1000.")
		}
	}
	if token != "" {
		last, err := base64.StdEncoding.DecodeString(token)
		if err != nil || most == nil {
			return nil, fail(invalidParameter, "Invalid or expired NextToken: it goes with MaxResults.")
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name <= string(last) })
	}
	slices.Sort(names)
	next := ""
	if len(names) > n {
		names = names[:n]
		if most != nil {
			next = base64.StdEncoding.EncodeToString([]byte(names[n-1]))
		}
	}
	w := &writer{}
	w.object("", func() {
		if len(names) > 0 || member == "queueUrls" {
			w.array(member, func() {
				for _, name := range names {
					w.string("", c.url(c.host, name))
				}
			})
		}
		w.optional("NextToken", next)
	})
	return w.b, nil
}

func purgeQueue(_ context.Context, c *call) ([]byte, *apiError) {
	q, err := c.onlyQueue()
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Now().Before(q.purged) {
		return nil, fail(purgeInProgress, "Only one PurgeQueue operation on %s is allowed every 60 seconds.", q.name)
	}
	q.purged = time.Now().Add(pause)
	q.q.Purge(c.now())
	clear(q.items)
	return []byte("{}"), nil
}
