package sqstest

import (
	"context"
	"maps"
	"slices"
)

const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

func checkTags(tags map[string]string) *apiError {
	if len(tags) > maxTags {
		return fail(invalidParameter, "Too many tags added for queue: %d, at most %d are allowed.", len(tags), maxTags)
	}
	for key, value := range tags {
		if key == "" || len([]rune(key)) > maxTagKey || len([]rune(value)) > maxTagValue {
			return fail(invalidParameter, "The tag %q isn't a key of 1 to 128 characters with a value of at most 256.", key)
		}
	}
	return nil
}

func tagQueue(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueUrl string //nolint:revive // as it's called
		Tags     map[string]string
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 {
		return nil, fail(missingParameter, "The request must contain the parameter Tags.")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	all := maps.Clone(q.tags)
	maps.Copy(all, in.Tags)
	if err := checkTags(all); err != nil {
		return nil, err
	}
	q.tags = all
	return []byte("{}"), nil
}

func untagQueue(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueUrl string //nolint:revive // as it's called
		TagKeys  []string
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.TagKeys) == 0 {
		return nil, fail(invalidParameter, "Tag keys can't be empty.")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, key := range in.TagKeys {
		delete(q.tags, key)
	}
	return []byte("{}"), nil
}

func listTags(_ context.Context, c *call) ([]byte, *apiError) {
	q, err := c.onlyQueue()
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tags) == 0 {
		return []byte("{}"), nil
	}
	w := &writer{}
	w.object("", func() {
		w.object("Tags", func() {
			for _, key := range slices.Sorted(maps.Keys(q.tags)) {
				w.key(key, q.tags[key])
			}
		})
	})
	return w.b, nil
}
