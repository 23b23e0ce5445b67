package pubsub

import (
	"context"
	"fmt"
	"strings"

	"cloud.google.com/go/iam/apiv1/iampb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Pub/Sub forwards dead letters as a service account of its own, one for each
// project (https://docs.cloud.google.com/pubsub/docs/dead-letter-topics): the number
// of the project, which isn't known here, stands between these.
const (
	agentPrefix = "serviceAccount:service-"
	agentSuffix = "@gcp-sa-pubsub.iam.gserviceaccount.com"
)

// grants looks whether Pub/Sub may forward dead letters. A grant on the whole project
// can't be seen on the resource, and is no worse.
func (e *ensuring) grants(ctx context.Context, deadTopic string, subs []*wantedSubscription) error {
	if e.dry {
		return nil // what doesn't exist yet has no grants
	}
	err := e.grant(ctx, "topics", deadTopic, "roles/pubsub.publisher", e.client.TopicAdminClient.GetIamPolicy)
	for _, s := range subs {
		if err == nil {
			err = e.grant(ctx, "subscriptions", s.name, "roles/pubsub.subscriber", e.client.SubscriptionAdminClient.GetIamPolicy)
		}
	}
	return err
}

type iamReader func(ctx context.Context, req *iampb.GetIamPolicyRequest, opts ...gax.CallOption) (*iampb.Policy, error)

func (e *ensuring) grant(ctx context.Context, kind, name, role string, read iamReader) error {
	policy, err := read(ctx, &iampb.GetIamPolicyRequest{Resource: name})
	switch status.Code(err) { //nolint:exhaustive // the others are errors
	case codes.OK:
	case codes.Unimplemented:
		return nil // an emulator, which asks nobody for permissions
	case codes.PermissionDenied:
		e.warn("can't see whether Pub/Sub's service account has %s on %s: %s", role, name, status.Convert(err).Message())
		return nil
	default:
		return classifyOpen(ctx, err)
	}
	for _, b := range policy.GetBindings() {
		if !grants(b.GetRole(), role) {
			continue
		}
		for _, m := range b.GetMembers() {
			if strings.HasPrefix(m, agentPrefix) && strings.HasSuffix(m, agentSuffix) {
				return nil
			}
		}
	}
	e.warn("unless it's granted on the whole project, Pub/Sub's service account lacks %s on %s, so that the dead-letter policy doesn't work and messages come again without end: "+
		"gcloud pubsub %s add-iam-policy-binding %s --member=%sPROJECT_NUMBER%s --role=%s",
		role, name, kind, name, agentPrefix, agentSuffix, role)
	return nil
}

// grants reports whether a role contains another one.
func grants(role, wanted string) bool {
	return role == wanted || role == "roles/pubsub.editor" || role == "roles/pubsub.admin" || role == "roles/editor" || role == "roles/owner"
}

func (e *ensuring) warn(format string, args ...any) {
	e.report.Warnings = append(e.report.Warnings, fmt.Sprintf(format, args...))
}
