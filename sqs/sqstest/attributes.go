package sqstest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are the attributes of a queue that can be set. They're replaced, never
// changed.
type settings struct {
	values map[string]string // as they're read

	delay, wait, visibility, retention time.Duration
	maxBytes                           int
	contentDedup, dedupByGroup         bool
	redrive                            *redrivePolicy
	allow                              redriveAllow
}

type redrivePolicy struct {
	target string // an ARN
	after  int
}

// redriveAllow says which queues may name this one as their dead-letter queue.
type redriveAllow struct {
	permission string
	sources    []string
}

// number is an attribute that's a whole number.
type number struct {
	name          string
	from, to, def int
}

// numbers are the attributes that are numbers.
func numbers() []number {
	return []number{
		{"DelaySeconds", 0, 900, 0},
		{"MaximumMessageSize", 1024, 1 << 20, 1 << 20},
		{"MessageRetentionPeriod", 60, 14 * 24 * 3600, 4 * 24 * 3600},
		{"ReceiveMessageWaitTimeSeconds", 0, 20, 0},
		{"VisibilityTimeout", 0, 12 * 3600, 30},
	}
}

const (
	byQueue, byGroup        = "queue", "messageGroup"
	limitByQueue, limitByID = "perQueue", "perMessageGroupId"
)

func defaults(fifo bool) map[string]string {
	v := map[string]string{"SqsManagedSseEnabled": "true"}
	for _, n := range numbers() {
		v[n.name] = strconv.Itoa(n.def)
	}
	if fifo {
		v["FifoQueue"] = "true"
		v["ContentBasedDeduplication"] = "false"
		v["DeduplicationScope"] = byQueue
		v["FifoThroughputLimit"] = limitByQueue
	}
	return v
}

// changeLocked returns settings with some attributes set anew. It needs Server.mu.
func (s *Server) changeLocked(old, set map[string]string, fifo bool) (*settings, *apiError) {
	v := maps.Clone(old)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := checkAttribute(name, set[name], fifo); err != nil {
			return nil, err
		}
		v[name] = set[name]
		if set[name] == "" {
			delete(v, name) // a policy is taken away
		}
	}
	if v["FifoThroughputLimit"] == limitByID && v["DeduplicationScope"] != byGroup {
		return nil, fail(invalidAttrValue, "Invalid value for the parameter FifoThroughputLimit. Reason: It can be perMessageGroupId only when DeduplicationScope is messageGroup.")
	}
	out := &settings{values: v}
	get := func(name string) int {
		n, err := strconv.Atoi(v[name])
		if err != nil {
			return 0 // can't be: it was checked
		}
		return n
	}
	second := func(name string) time.Duration { return time.Duration(get(name)) * time.Second }
	out.delay, out.wait = second("DelaySeconds"), second("ReceiveMessageWaitTimeSeconds")
	out.visibility, out.retention = second("VisibilityTimeout"), second("MessageRetentionPeriod")
	out.maxBytes = get("MaximumMessageSize")
	out.contentDedup = v["ContentBasedDeduplication"] == "true"
	out.dedupByGroup = v["DeduplicationScope"] == byGroup
	var err *apiError
	if p := v["RedriveAllowPolicy"]; p != "" {
		if out.allow, err = parseAllow(p); err != nil {
			return nil, err
		}
	}
	if p := v["RedrivePolicy"]; p != "" {
		if out.redrive, err = parseRedrive(p); err != nil {
			return nil, err
		}
		if _, changed := set["RedrivePolicy"]; changed {
			if err := checkTarget(p, s.byARNLocked(out.redrive.target), fifo); err != nil {
				return nil, err
			}
		}
		b := append([]byte(nil), `{"deadLetterTargetArn":`...)
		b = appendString(b, out.redrive.target)
		b = append(b, `,"maxReceiveCount":`...)
		b = strconv.AppendInt(b, int64(out.redrive.after), 10)
		v["RedrivePolicy"] = string(append(b, '}'))
	}
	return out, nil
}

func checkAttribute(name, value string, fifo bool) *apiError {
	bad := fail(invalidAttrValue, "Invalid value for the parameter %s.", name)
	oneOf := func(values ...string) *apiError {
		if !slices.Contains(values, value) {
			return bad
		}
		return nil
	}
	for _, n := range numbers() {
		if n.name == name {
			if x, err := strconv.Atoi(value); err != nil || x < n.from || x > n.to {
				return bad
			}
			return nil
		}
	}
	switch name {
	case "RedrivePolicy", "RedriveAllowPolicy":
		return nil // parsed by the caller
	case "SqsManagedSseEnabled":
		return oneOf("true", "false")
	case "FifoQueue":
		if !fifo {
			return unknownAttribute(name)
		}
		if value != "true" {
			return fail(invalidAttrValue, "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.")
		}
		return nil
	case "ContentBasedDeduplication":
		if !fifo {
			return unknownAttribute(name)
		}
		return oneOf("true", "false")
	case "DeduplicationScope", "FifoThroughputLimit":
		if !fifo {
			return fail(invalidAttrName, "You can specify the %s only when FifoQueue is set to true.", name)
		}
		if name == "DeduplicationScope" {
			return oneOf(byQueue, byGroup)
		}
		return oneOf(limitByQueue, limitByID)
	case "Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds":
		if value == "" {
			return nil
		}
		return fail(unsupported, "sqstest has no permissions and no encryption: it can't set the attribute %s", name)
	}
	return unknownAttribute(name)
}

func unknownAttribute(name string) *apiError {
	return fail(invalidAttrName, "Unknown Attribute %s.", name)
}

func parseRedrive(policy string) (*redrivePolicy, *apiError) {
	invalid := func(format string, args ...any) (*redrivePolicy, *apiError) {
		return nil, fail(invalidParameter, "Value "+strings.ReplaceAll(policy, "%", "%%")+" for parameter RedrivePolicy is invalid. Reason: "+format, args...)
	}
	var in struct {
		Target string          `json:"deadLetterTargetArn"`
		After  json.RawMessage `json:"maxReceiveCount"`
	}
	if json.Unmarshal([]byte(policy), &in) != nil {
		return invalid("Redrive policy is not a valid JSON map.")
	}
	if in.Target == "" || len(in.After) == 0 {
		return invalid("Redrive policy does not contain mandatory attribute: deadLetterTargetArn and maxReceiveCount.")
	}
	text := strings.Trim(string(in.After), `"`) // written as a number or as a string
	after, err := strconv.Atoi(text)
	if err != nil || after < 1 || after > 1000 {
		return invalid("Invalid value for maxReceiveCount: %s, valid values are from 1 to 1000 both inclusive.", text)
	}
	return &redrivePolicy{target: in.Target, after: after}, nil
}

func checkTarget(policy string, target *core, fifo bool) *apiError {
	const text = "Value %s for parameter RedrivePolicy is invalid. Reason: %s"
	switch {
	case target == nil:
		return fail(invalidParameter, text, policy, "Dead letter target does not exist.")
	case target.fifo != fifo:
		return fail(invalidParameter, text, policy, "Dead-letter queue must be same type of queue as the source.")
	}
	return nil
}

func parseAllow(policy string) (redriveAllow, *apiError) {
	var in struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns"`
	}
	invalid := fail(invalidParameter, "Value %s for parameter RedriveAllowPolicy is invalid.", policy)
	if json.Unmarshal([]byte(policy), &in) != nil {
		return redriveAllow{}, invalid
	}
	switch in.Permission {
	case "allowAll", "denyAll":
		if len(in.Sources) > 0 {
			return redriveAllow{}, invalid
		}
	case "byQueue":
		if len(in.Sources) == 0 || len(in.Sources) > 10 {
			return redriveAllow{}, invalid
		}
	default:
		return redriveAllow{}, invalid
	}
	return redriveAllow{in.Permission, in.Sources}, nil
}

func (a redriveAllow) allows(source string) bool {
	switch a.permission {
	case "denyAll":
		return false
	case "byQueue":
		return slices.Contains(a.sources, source)
	}
	return true
}

// apply makes the broker keep to the settings.
func (q *core) apply(set *settings, target *core) {
	if set.redrive == nil || target == nil {
		q.q.SetPolicy(set.retention, 0, nil)
		return
	}
	q.q.SetPolicy(set.retention, set.redrive.after, target.q)
}

func setQueueAttributes(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueUrl   string //nolint:revive // as it's called
		Attributes map[string]string
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.Attributes) == 0 {
		return nil, fail(missingParameter, "The request must contain the parameter Attributes.")
	}
	if _, ok := in.Attributes["FifoQueue"]; ok && !q.fifo {
		return nil, unknownAttribute("FifoQueue")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	set, err := c.changeLocked(q.settings.Load().values, in.Attributes, q.fifo)
	if err != nil {
		return nil, err
	}
	if err := c.allowedLocked(q, set, in.Attributes); err != nil {
		return nil, err
	}
	c.storeLocked(q, set)
	q.mu.Lock()
	q.modified = c.wall()
	q.mu.Unlock()
	return []byte("{}"), nil
}

// byARNLocked is queueOf with Server.mu held.
func (s *Server) byARNLocked(arn string) *core {
	name, ok := strings.CutPrefix(arn, s.arn(""))
	if !ok {
		return nil
	}
	return s.queues[name]
}

// allowedLocked checks that the target of a new redrive policy allows it.
func (s *Server) allowedLocked(q *core, set *settings, given map[string]string) *apiError {
	if _, ok := given["RedrivePolicy"]; !ok || set.redrive == nil {
		return nil
	}
	target := s.byARNLocked(set.redrive.target)
	if target == nil || target.settings.Load().allow.allows(q.arn) {
		return nil
	}
	return fail(invalidParameter, "Value %s for parameter RedrivePolicy is invalid. Reason: The dead-letter queue's RedriveAllowPolicy doesn't allow it.", set.values["RedrivePolicy"])
}

func (s *Server) storeLocked(q *core, set *settings) {
	q.settings.Store(set)
	var target *core
	if set.redrive != nil {
		target = s.byARNLocked(set.redrive.target)
	}
	q.apply(set, target)
}

func getQueueAttributes(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		QueueUrl       string //nolint:revive // as it's called
		AttributeNames []string
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.AttributeNames) == 0 {
		return []byte("{}"), nil
	}
	v := maps.Clone(q.settings.Load().values)
	v["QueueArn"] = q.arn
	q.mu.Lock()
	v["CreatedTimestamp"] = strconv.FormatInt(q.created.Unix(), 10)
	v["LastModifiedTimestamp"] = strconv.FormatInt(q.modified.Unix(), 10)
	q.mu.Unlock()
	counts := q.q.Counts(c.now())
	v["ApproximateNumberOfMessages"] = strconv.Itoa(counts.Ready)
	v["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(counts.Leased)
	v["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(counts.Delayed)

	names := in.AttributeNames
	if slices.Contains(names, "All") {
		names = slices.Collect(maps.Keys(v))
	}
	slices.Sort(names)
	w := &writer{}
	found := false
	w.object("", func() {
		w.object("Attributes", func() {
			for _, name := range slices.Compact(names) {
				value, ok := v[name]
				if !ok {
					if !isQueueAttribute(name) {
						err = unknownAttribute(name)
					}
					continue
				}
				found = true
				w.key(name, value)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return []byte("{}"), nil
	}
	return w.b, nil
}

// isQueueAttribute knows the names of attributes that a queue may lack.
func isQueueAttribute(name string) bool {
	switch name {
	case "Policy", "RedrivePolicy", "RedriveAllowPolicy", "FifoQueue", "ContentBasedDeduplication", "KmsMasterKeyId",
		"KmsDataKeyReusePeriodSeconds", "DeduplicationScope", "FifoThroughputLimit", "SqsManagedSseEnabled":
		return true
	}
	return false
}
