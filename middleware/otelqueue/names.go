package otelqueue

import "go.opentelemetry.io/otel/attribute"

// The names of OpenTelemetry's conventions for messaging, of
// https://github.com/open-telemetry/semantic-conventions (docs/messaging, v1.44.0, all
// of them "Development"). They stand here as text, so that what's sent doesn't change
// with a dependency.
const (
	attrSystem         = attribute.Key("messaging.system")
	attrOperationName  = attribute.Key("messaging.operation.name")
	attrOperationType  = attribute.Key("messaging.operation.type")
	attrDestination    = attribute.Key("messaging.destination.name")
	attrSubscription   = attribute.Key("messaging.destination.subscription.name")
	attrMessageID      = attribute.Key("messaging.message.id")
	attrBodySize       = attribute.Key("messaging.message.body.size")
	attrBatchCount     = attribute.Key("messaging.batch.message_count")
	attrErrorType      = attribute.Key("error.type")
	attrGCPOrderingKey = attribute.Key("messaging.gcp_pubsub.message.ordering_key")
	attrGCPAttempt     = attribute.Key("messaging.gcp_pubsub.message.delivery_attempt")
	attrServerAddress  = attribute.Key("server.address")
	attrServerPort     = attribute.Key("server.port")
	attrSQSQueueURL    = attribute.Key("aws.sqs.queue.url")

	metricOperationDuration = "messaging.client.operation.duration"
	metricSent              = "messaging.client.sent.messages"
	metricConsumed          = "messaging.client.consumed.messages"
	metricProcessDuration   = "messaging.process.duration"

	opCreate  = "create"
	opSend    = "send"
	opReceive = "receive"
	opProcess = "process"
	opSettle  = "settle"

	systemGCP = "gcp_pubsub"
	systemSQS = "aws_sqs"
)

// What has no convention.
const (
	attrOutcome  = attribute.Key("anyqueue.outcome") // of a delivery: success, failed, retry, ...
	attrConsumer = attribute.Key("anyqueue.consumer.name")
	attrKind     = attribute.Key("anyqueue.settlement.kind") // ack, release, defer
	attrState    = attribute.Key("anyqueue.message.state")   // ready, in_flight, delayed, total
	attrFailures = attribute.Key("anyqueue.message.failures")

	metricWait         = "anyqueue.consumer.wait.duration"
	metricLimit        = "anyqueue.consumer.concurrency.limit"
	metricInUse        = "anyqueue.consumer.concurrency.in_use"
	metricHeld         = "anyqueue.consumer.held"
	metricOutcomes     = "anyqueue.consumer.outcomes"
	metricLeasesLost   = "anyqueue.consumer.leases_lost"
	metricSettlements  = "anyqueue.consumer.settlements"
	metricSettleFailed = "anyqueue.consumer.settlements.failed"
	metricDepth        = "anyqueue.queue.messages"
	metricOldestAge    = "anyqueue.queue.oldest_message.age"
)
