"""How a program in another language shares Pub/Sub topics with anyqueue.

There's no envelope. The data is the body, whatever its bytes, attributes are
attributes, and the ordering key is the ordering key, so most programs need nothing
of this file. What's worth knowing:

  * The attribute queue-meta holds what the library itself knows, as JSON; it's there
    only when there's something to know. A value may have 1,024 bytes, so that longer
    JSON goes on in queue-meta-2, queue-meta-3 and so on. Unknown fields are to be
    ignored. The known ones:
      id      the message's own ID, where it isn't Pub/Sub's
      due     the time (Unix milliseconds) before which it isn't to be handled
      attrs   attributes that couldn't travel as such: Pub/Sub takes a hundred
      bin     the same in base64, for values that aren't UTF-8
      key     the ordering key of a dead letter, if its queue keeps no order
      enq     when a message that was published again first was (Unix milliseconds)
      dl      the history of a dead letter; its "id" is left out where it's that of the
              message, its "first" (the time of the first enqueue) where it's enq
  * Pub/Sub refuses a message without data and attributes. An empty one has the
    attribute queue-encoding, which says "empty".
  * What anyqueue publishes again to a queue's own consumers (a redriven dead letter,
    a wait beyond ten minutes) comes from a subscription of its own, if there's one:
    the queue's with ".return" behind its name. Who consumes instead of anyqueue, not
    just beside it, receives from both.

It needs google-cloud-pubsub, and finds credentials, or the emulator by
PUBSUB_EMULATOR_HOST, as every program of Google Cloud. Names are full ones.

    interop.py send TOPIC                   one message per line of standard input
    interop.py receive SUBSCRIPTION COUNT   one message per line of standard output

A line is JSON: {"body": BASE64, "id": TEXT, "attributes": {NAME: TEXT}, "key": TEXT, "due":
NUMBER}; all but the body may be missing. What's received has Pub/Sub's own "broker_id" too,
the history of a dead letter as "dead_letter", and {"b64": BASE64} for values that aren't text.
"""

import base64
import datetime
import json
import math
import sys
import time

from google.api_core import exceptions
from google.cloud import pubsub_v1

META, ENCODING = "queue-meta", "queue-encoding"
MAX_VALUE = 1024  # bytes of an attribute
MAX_DEADLINE = 600  # seconds for which Pub/Sub can hide a message


def send(publisher, topic, body, attributes=None, message_id=None, key="", due=None):
    """Publishes bytes, so that a consumer of anyqueue gets the same bytes."""
    attrs = dict(attributes or {})
    meta = {name: value for name, value in (("id", message_id), ("due", due)) if value}
    if meta:
        text = json.dumps(meta)  # ASCII only, so that it may be cut anywhere
        for n, start in enumerate(range(0, len(text), MAX_VALUE)):
            attrs[meta_name(n)] = text[start : start + MAX_VALUE]
    if not body and not attrs:
        attrs[ENCODING] = "empty"
    return publisher.publish(topic, body, ordering_key=key, **attrs)


def receive(subscriber, subscription):
    """Waits for messages, acknowledges them, and returns what was published.

    What isn't due is hidden until then, for as long as Pub/Sub can, and comes again."""
    try:
        answer = subscriber.pull(subscription=subscription, max_messages=10, timeout=5)
    except exceptions.DeadlineExceeded:
        return []  # nothing came
    received, done = [], []
    for r in answer.received_messages:
        message = read(r.message)
        wait = message.get("due", 0) / 1000 - time.time()
        if wait > 0:
            subscriber.modify_ack_deadline(
                subscription=subscription, ack_ids=[r.ack_id], ack_deadline_seconds=min(math.ceil(wait), MAX_DEADLINE)
            )
            continue
        received.append(message)
        done.append(r.ack_id)
    if done:
        subscriber.acknowledge(subscription=subscription, ack_ids=done)
    return received


def read(message):
    """Returns what was published as the message that came."""
    attributes = dict(message.attributes)
    if attributes.get(ENCODING) == "empty" and not message.data:
        del attributes[ENCODING]
    meta = read_meta(attributes)
    binary = {name: base64.b64decode(value) for name, value in meta.get("bin", {}).items()}
    published = {
        "id": meta.get("id", message.message_id),
        "broker_id": message.message_id,
        "body": message.data,
        "attributes": meta.get("attrs", {}) | binary | attributes,
        "key": message.ordering_key or meta.get("key", ""),
    }
    if "due" in meta:
        published["due"] = meta["due"]
    if "dl" in meta:
        first = datetime.datetime.fromtimestamp(meta.get("enq", 0) / 1000, datetime.timezone.utc)
        published["dead_letter"] = {"id": published["id"], "first": first.isoformat()} | meta["dl"]
    return published


def read_meta(attributes):
    """Takes the library's metadata out of a message's attributes."""
    names, text = [], ""
    while (name := meta_name(len(names))) in attributes:
        names.append(name)
        text += attributes[name]
    try:
        meta = json.loads(text or "{}")
    except ValueError:
        return {}  # somebody else's
    for name in names:
        del attributes[name]
    return meta


def meta_name(n):
    return META if n == 0 else f"{META}-{n + 1}"


def to_json(value):
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def main():
    command, name = sys.argv[1:3]
    if command == "send":
        ordered = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        publisher = pubsub_v1.PublisherClient(publisher_options=ordered)
        sent = []
        for line in sys.stdin:
            m = json.loads(line)
            body = base64.b64decode(m["body"])
            sent.append(send(publisher, name, body, m.get("attributes"), m.get("id"), m.get("key", ""), m.get("due")))
        for future in sent:
            future.result(timeout=30)
    elif command == "receive":
        subscriber = pubsub_v1.SubscriberClient()
        left, deadline = int(sys.argv[3]), time.monotonic() + 30
        while left > 0 and time.monotonic() < deadline:
            for message in receive(subscriber, name):
                left -= 1
                message["body"] = base64.b64encode(message["body"]).decode()
                message["attributes"] = {k: to_json(v) for k, v in message["attributes"].items()}
                print(json.dumps(message), flush=True)
        if left > 0:
            sys.exit(f"{left} messages didn't come within 30 s")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
