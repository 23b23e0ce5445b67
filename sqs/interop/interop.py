"""How a program in another language shares SQS queues with anyqueue.

There's no envelope. The body is the body and attributes are attributes, so most
programs need nothing of this file. What's worth knowing:

  * A body that SQS can't carry (it takes the text of XML 1.0, at least one
    character) travels as base64, or as "-" when it's empty, and the attribute
    queue-encoding says so. receive() below undoes it; send() does the same.
  * The attribute queue-meta holds what the library itself knows, as JSON; it's
    there only when there's something to know. "id" is the message's own ID, "due" is
    the time (Unix milliseconds) before which it isn't to be handled, "attrs" and
    "bin" are attributes that couldn't travel as such, "dl" is the history of a dead
    letter. Unknown fields are to be ignored.

It needs boto3, and reads the endpoint, region and credentials from the environment.

    interop.py send QUEUE_URL           one message per line of standard input
    interop.py receive QUEUE_URL COUNT  one message per line of standard output

A line is JSON: {"body": BASE64, "id": TEXT, "attributes": {NAME: TEXT or {"b64": BASE64}},
"key": TEXT}; all but the body may be missing. The key is that of a FIFO queue's group. What's
received has SQS's own "broker_id" too.
"""

import base64
import json
import re
import sys
import time
import uuid

import boto3

# What SQS takes as a body: the characters of XML 1.0.
XML = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


def send(sqs, queue_url, body, attributes=None, message_id=None, group=None):
    """Sends bytes, so that a consumer of anyqueue gets the same bytes."""
    attrs = {}
    for name, value in (attributes or {}).items():
        kind = "Binary" if isinstance(value, bytes) else "String"
        attrs[name] = {"DataType": kind, kind + "Value": value}
    text = decode_utf8(body)
    if text is None or not XML.fullmatch(text):
        encoding, text = ("base64", base64.b64encode(body).decode()) if body else ("empty", "-")
        attrs["queue-encoding"] = {"DataType": "String", "StringValue": encoding}
    if message_id:
        attrs["queue-meta"] = {"DataType": "String", "StringValue": json.dumps({"id": message_id})}
    fifo = {}
    if queue_url.endswith(".fifo"):
        fifo = {"MessageGroupId": group, "MessageDeduplicationId": str(uuid.uuid4())}
    sqs.send_message(QueueUrl=queue_url, MessageBody=text, MessageAttributes=attrs, **fifo)


def receive(sqs, queue_url):
    """Waits for messages, deletes them, and returns what was published."""
    answer = sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        WaitTimeSeconds=2,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    )
    received = []
    for message in answer.get("Messages", []):
        attributes = {}
        for name, value in message.get("MessageAttributes", {}).items():
            attributes[name] = value.get("StringValue", value.get("BinaryValue"))
        body = message["Body"].encode()
        encoding = attributes.pop("queue-encoding", None)
        if encoding == "base64":
            body = base64.b64decode(body)
        elif encoding == "empty":
            body = b""
        meta = json.loads(attributes.pop("queue-meta", "{}"))
        attributes.update(meta.get("attrs", {}))
        attributes.update((name, base64.b64decode(value)) for name, value in meta.get("bin", {}).items())
        received.append(
            {
                "id": meta.get("id", message["MessageId"]),
                "broker_id": message["MessageId"],
                "body": body,
                "attributes": attributes,
                "key": message["Attributes"].get("MessageGroupId"),
            }
        )
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    return received


def decode_utf8(body):
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def to_json(value):
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def from_json(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def main():
    command, queue_url = sys.argv[1:3]
    sqs = boto3.client("sqs")
    if command == "send":
        for line in sys.stdin:
            message = json.loads(line)
            attributes = {name: from_json(value) for name, value in message.get("attributes", {}).items()}
            send(sqs, queue_url, base64.b64decode(message["body"]), attributes, message.get("id"), message.get("key"))
    elif command == "receive":
        left, deadline = int(sys.argv[3]), time.monotonic() + 30
        while left > 0 and time.monotonic() < deadline:
            for message in receive(sqs, queue_url):
                left -= 1
                message["body"] = base64.b64encode(message["body"]).decode()
                message["attributes"] = {name: to_json(value) for name, value in message["attributes"].items()}
                print(json.dumps(message), flush=True)
        if left > 0:
            sys.exit(f"{left} messages didn't come within 30 s")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
