package pubsub

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/anyqueue/anyqueue/queue"
)

// place is where a queue is: full names, empty where unknown.
type place struct {
	topic, subscription string
}

const (
	topicKind        = "topics"
	subscriptionKind = "subscriptions"
)

// resourceName is a full name, or one within the project.
var resourceName = regexp.MustCompile(`^(?:projects/([^/]+)/)?(` + topicKind + `|` + subscriptionKind + `)/([^/]+)$`)

func fullName(project, kind, id string) string { return "projects/" + project + "/" + kind + "/" + id }

// topicOf is the name that a topic has which is called like the subscription.
func topicOf(subscription string) string {
	return strings.Replace(subscription, "/"+subscriptionKind+"/", "/"+topicKind+"/", 1)
}

// locate works out where the queue is from its name and the explicit address: a
// topic, a subscription, or both with a comma between them.
func locate(project, name string, opts *queue.OpenOptions) (place, error) {
	if opts.Address == "" {
		if err := queue.CheckName(name); err != nil {
			return place{}, err
		}
		return place{topic: fullName(project, topicKind, name), subscription: fullName(project, subscriptionKind, name)}, nil
	}
	invalid := func(reason string) (place, error) {
		return place{}, &queue.InvalidError{Field: "Address", Reason: fmt.Sprintf("%q %s", opts.Address, reason)}
	}
	var at place
	for part := range strings.SplitSeq(opts.Address, ",") {
		m := resourceName.FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return invalid("isn't the name of a topic or subscription (projects/P/subscriptions/S, or subscriptions/S), nor of both with a comma between them")
		}
		if m[1] == "" {
			m[1] = project
		}
		which := &at.topic
		if m[2] == subscriptionKind {
			which = &at.subscription
		}
		if *which != "" {
			return invalid("names two of a kind")
		}
		*which = fullName(m[1], m[2], m[3])
	}
	if at.subscription == "" && opts.Mode != queue.ForPublish {
		return invalid("is a topic, which can only be opened to publish; name its subscription")
	}
	return at, nil
}
