#!/usr/bin/env bash
#
# Installs, starts and stops the foreign servers the tests run against:
#
#   localstack   LocalStack (SQS)           ANYQUEUE_TEST_SQS_LOCALSTACK=http://127.0.0.1:PORT
#                                           ANYQUEUE_TEST_PYTHON=a Python with the AWS SDK boto3
#   elasticmq    ElasticMQ (SQS)            ANYQUEUE_TEST_SQS_ELASTICMQ=http://127.0.0.1:PORT
#   pubsub       Google's Pub/Sub emulator  ANYQUEUE_TEST_PUBSUB_EMULATOR=127.0.0.1:PORT
#                                           ANYQUEUE_TEST_PUBSUB_JAR=its program, for tests that kill one of their own
#                                           ANYQUEUE_TEST_PUBSUB_PYTHON=a Python with Google's client
#
# As a command:
#
#   .ci/servers.sh start DIR [SERVER...]   start all servers, or those named; print export lines
#   .ci/servers.sh stop DIR                stop what was started with that DIR
#
# As a library: source it, then call "servers_start DIR [SERVER...]", which also exports the
# variables into the calling shell, and "servers_stop DIR".
#
# start returns when every server has answered a real request; they then outlive it, on free
# ports of the loopback interface only. Messages go to standard error, the export lines to
# standard output and to DIR/env. Logs, process ids and data lie in DIR/SERVER. Where the
# servers of DIR are still up, start prints the same lines again. If one can't be had, start
# prints the end of its log, stops the others and fails.
#
# Installations are kept in $ANYQUEUE_CI_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/anyqueue-ci,
# and used again. Needed: Linux, curl, java (17), mvn, python3 and the gcloud CLI. LocalStack needs
# Python 3.13 or newer and Google's client 3.11, whatever python3 is: one is looked for, or named by
# ANYQUEUE_CI_PYTHON.

servers_start() {
	bash "${BASH_SOURCE[0]}" start "$@" >/dev/null || return
	# shellcheck disable=SC1091 # written by the command above
	. "$1/env"
}

servers_stop() { bash "${BASH_SOURCE[0]}" stop "$@"; }

# Sourced: that was the library.
if [[ ${BASH_SOURCE[0]} != "$0" ]]; then return 0; fi

set -euo pipefail
set +m # no job control: a child started with setsid keeps its process id

# The last LocalStack that starts without a token. The project is archived, its dependencies
# aren't, and the newest of them break it (cbor2 6, pyOpenSSL 26, localstack-twisted 26): so
# all of them are held at versions that were seen to work. moto-ext is what SQS needs beyond
# base-runtime.
LOCALSTACK_VERSION=4.14.0
LOCALSTACK_PINS='
annotated-types==0.8.0 asn1crypto==1.5.1 attrs==26.1.0 awscrt==0.38.1 boto3==1.42.54
botocore==1.42.54 cachetools==8.0.1 cbor2==5.9.0 certifi==2026.10.18 cffi==2.1.1
charset-normalizer==3.5.2 click==8.5.1 constantly==23.10.4 cryptography==46.0.7 dill==0.3.6
dnslib==0.9.26 dnspython==2.9.2 docker==7.2.0 h11==0.16.0 h2==4.4.1 hpack==4.2.0
Hypercorn==0.18.0 hyperframe==6.1.0 hyperlink==21.0.0 idna==3.20 Incremental==24.11.0
isodate==0.7.2 Jinja2==3.1.6 jmespath==1.1.0 jsonpatch==1.47 jsonpointer==3.12
jsonschema==4.26.0 jsonschema-path==0.4.6 jsonschema-specifications==2025.9.1
lazy-object-proxy==1.13.0 localstack-twisted==25.5.0 markdown-it-py==4.3.0 MarkupSafe==3.0.4
mdurl==0.1.2 more-itertools==11.2.1 moto-ext==5.1.54 openapi-core==0.23.1
openapi-schema-validator==0.8.1 openapi-spec-validator==0.8.5 packaging==26.3 pathable==0.5.0
plux==1.16.0 priority==1.3.0 psutil==7.2.2 pycparser==3.12 pydantic==2.14.3
pydantic-settings==2.16.3 pydantic_core==2.50.4 Pygments==2.21.0 pyOpenSSL==25.3.0
python-dateutil==2.9.0.post0 python-dotenv==1.2.4 PyYAML==6.0.3 readerwriterlock==1.0.10
referencing==0.37.0 requests==2.34.2 requests-aws4auth==1.4.0 responses==0.26.3
rfc3339-validator==0.1.4 rich==15.0.0 rolo==0.8.9 rpds-py==2026.9.1 s3transfer==0.16.1
semver==3.1.1 six==1.17.0 typing-inspection==0.4.5 typing_extensions==4.16.0 urllib3==2.8.0
Werkzeug==3.1.9 wsproto==1.3.2 xmltodict==1.0.4 zope.interface==8.7
'
# Google's client for Python, and what it stands on, as the newest of that may break it one day.
PUBSUB_PYTHON_VERSION=2.44.0
PUBSUB_PYTHON_PINS='
certifi==2026.10.18 cffi==2.1.1 charset-normalizer==3.5.2 cryptography==50.0.2
google-api-core==2.44.0 google-auth==2.63.0 googleapis-common-protos==1.76.0
grpc-google-iam-v1==0.14.6 grpcio==1.85.3 grpcio-status==1.85.3 idna==3.20
opentelemetry-api==1.45.2 opentelemetry-sdk==1.45.2
opentelemetry-semantic-conventions==0.66b2 proto-plus==1.29.0 protobuf==7.36.2 pyasn1==0.6.5
pyasn1_modules==0.4.2 pycparser==3.12 requests==2.34.2 typing_extensions==4.16.0 urllib3==2.8.0
'
ELASTICMQ_VERSION=1.7.1
MAVEN_DEPENDENCY_PLUGIN_VERSION=3.8.1
READY_SECONDS=90

say() { printf 'servers: %s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

# ---- processes -----------------------------------------------------------------------------

# started_at PID: the kernel's start time of a process that runs (a zombie doesn't). Together
# with the id it names one process for good, so that stop can't hit a stranger's.
started_at() {
	local stat fields
	{ stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
	read -ra fields <<<"${stat##*) }"
	[[ ${fields[0]} != [ZX] ]] || return 1
	printf '%s\n' "${fields[19]}"
}

# alive DIR/SERVER: sets pid; fails if that server doesn't run.
alive() {
	local since
	pid=
	[[ -s $1/pid ]] || return 1
	read -r pid since <"$1/pid" || return 1
	[[ -n $since && $(started_at "$pid") == "$since" ]]
}

# launch DIR/SERVER COMMAND...: in a session of its own, which outlives this script.
launch() {
	local home=$1
	shift
	(cd "$home" && exec setsid nohup "$@" </dev/null >log 2>&1) &
	printf '%s %s\n' "$!" "$(started_at "$!")" >"$home/pid"
}

# await DIR/SERVER URL [CURL OPTION...]: until the server answers with success.
await() {
	local home=$1 url=$2 deadline=$((SECONDS + READY_SECONDS)) pid
	shift 2
	until request "$url" "$@"; do
		alive "$home" || die "${home##*/} ended before it was ready"
		((SECONDS < deadline)) || die "${home##*/} wasn't ready after $READY_SECONDS seconds"
		sleep 0.1
	done
	# The answer could be another program's, if that took the port and the server died of it.
	alive "$home" || die "${home##*/} ended before it was ready"
}

request() { curl --silent --fail --output /dev/null --noproxy '*' --max-time 30 "${@:2}" "$1"; }

await_sqs() {
	await "$1" "$2/" \
		--header 'Content-Type: application/x-amz-json-1.0' \
		--header 'X-Amz-Target: AmazonSQS.ListQueues' \
		--header 'Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0' \
		--data '{}'
}

await_pubsub() { await "$1" "http://$2/v1/projects/ready/topics"; }

# halt DIR/SERVER: ask, then kill; its session's other processes too.
halt() {
	local home=$1 pid deadline=$((SECONDS + 10))
	if alive "$home"; then
		kill -TERM "$pid" 2>/dev/null || true
		while alive "$home" && ((SECONDS < deadline)); do sleep 0.05; done
		if alive "$home"; then say "${home##*/} ignores SIGTERM, killing it"; fi
		kill -KILL -- "-$pid" 2>/dev/null || true
		while alive "$home" && ((SECONDS < deadline + 5)); do sleep 0.05; done
		if alive "$home"; then
			say "${home##*/} (process $pid) doesn't end"
			return 1
		fi
	fi
	rm -f "$home/pid"
}

# free_ports N: distinct ports below the range that outgoing connections get theirs from.
free_ports() {
	python3 - "$1" <<-'PY'
		import random, socket, sys
		held = []
		while len(held) < int(sys.argv[1]):
		    s = socket.socket()
		    try:
		        s.bind(("0.0.0.0", random.randint(20000, 31999)))
		    except OSError:
		        continue
		    held.append(s)
		print(*(s.getsockname()[1] for s in held))
	PY
}

# ---- installing ----------------------------------------------------------------------------

# cached KEY FUNCTION: run FUNCTION in a new folder KEY of the cache, unless an earlier run,
# or one at the same time, has done so. Sets installed to the folder.
cached() {
	installed=$CACHE/$1
	mkdir -p "$CACHE"
	(
		flock 9
		[[ ! -e $installed/.complete ]] || exit 0
		say "installing $1"
		rm -rf "$installed"
		mkdir "$installed"
		cd "$installed"
		"$2"
		touch .complete
	) 9>"$installed.lock"
}

# python_from MINOR WHAT: a Python 3 of at least this minor version, for WHAT. On the PATH or
# among pyenv's.
python_from() {
	local candidate pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}
	for candidate in ${ANYQUEUE_CI_PYTHON:+"$ANYQUEUE_CI_PYTHON"} \
		python3.13 "$pyenv"/versions/3.13.*/bin/python3 python3; do
		if "$candidate" -c "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, $1))" &>/dev/null; then
			printf '%s\n' "$candidate"
			return
		fi
	done
	die "$2 needs Python 3.$1 or newer: set ANYQUEUE_CI_PYTHON to one"
}

# cached_python NAME PINS FUNCTION: cached, for what $python installs with these pins.
cached_python() {
	local version pins
	version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
	pins=$(cksum <<<"$2")
	cached "$1-python-$version-${pins%% *}" "$3"
}

# pip_install PINS REQUIREMENT...: with $python, into the current folder.
pip_install() {
	"$python" -m venv .
	# shellcheck disable=SC2086 # to be split into words
	printf '%s\n' $1 >constraints.txt
	bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "${@:2}"
}

install_localstack() {
	pip_install "$LOCALSTACK_PINS" "localstack-core[base-runtime]==$LOCALSTACK_VERSION" moto-ext
	bin/python -c 'import localstack.services.sqs.provider'
}

install_pubsub_python() {
	pip_install "$PUBSUB_PYTHON_PINS" "google-cloud-pubsub==$PUBSUB_PYTHON_VERSION"
	bin/python -c 'import google.cloud.pubsub_v1'
}

install_elasticmq() {
	cat >pom.xml <<-XML
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>anyqueue.ci</groupId>
		  <artifactId>elasticmq</artifactId>
		  <version>1</version>
		  <packaging>pom</packaging>
		  <dependencies>
		    <dependency>
		      <groupId>org.elasticmq</groupId>
		      <artifactId>elasticmq-server_2.13</artifactId>
		      <version>$ELASTICMQ_VERSION</version>
		    </dependency>
		  </dependencies>
		</project>
	XML
	mvn --batch-mode --quiet \
		"org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_DEPENDENCY_PLUGIN_VERSION:copy-dependencies" \
		-DincludeScope=runtime -DoutputDirectory="$PWD/jars"
	[[ -e jars/elasticmq-server_2.13-$ELASTICMQ_VERSION.jar ]]
}

# emulator_jar: the newest jar of the gcloud CLI's Pub/Sub emulator, if there is one.
emulator_jar() {
	local gcloud how root jar
	gcloud=$(command -v gcloud) || return 1
	for how in link info; do
		case $how in
		link) root=$(readlink -f "$gcloud") && root=${root%/bin/gcloud} ;;
		info) root=$("$gcloud" info --format='value(installation.sdk_root)' 2>/dev/null) ;; # slow
		esac || continue
		jar=$(find "$root/platform/pubsub-emulator/lib" -name 'cloud-pubsub-emulator-*-all.jar' 2>/dev/null |
			sort --version-sort | tail -n 1) || true
		if [[ -n $jar ]]; then
			printf '%s\n' "$jar"
			return
		fi
	done
	return 1
}

install_pubsub() {
	local sudo=()
	if [[ $EUID != 0 ]]; then sudo=(sudo -n); fi
	say "installing the Pub/Sub emulator's package"
	"${sudo[@]}" apt-get install -y google-cloud-cli-pubsub-emulator ||
		{ "${sudo[@]}" apt-get update && "${sudo[@]}" apt-get install -y google-cloud-cli-pubsub-emulator; } ||
		die 'no Pub/Sub emulator: install the gcloud CLI and its component pubsub-emulator'
}

# ---- the servers: up_SERVER DIR/SERVER PORT -------------------------------------------------

up_localstack() {
	local home=$1 port=$2 installed python
	# Its own image runs 3.13. Its package claims to do with 3.10, but its sources use what
	# 3.12 and 3.13 brought.
	python=$(python_from 13 LocalStack)
	cached_python "localstack-$LOCALSTACK_VERSION" "$LOCALSTACK_PINS" install_localstack >"$home/install.log"
	mkdir -p "$home/home" "$home/data"
	# A clean environment: no proxies, profiles or credentials of the caller's. The endpoint
	# strategy "dynamic" puts the host that was asked into queue URLs, the default a name of
	# the internet. LocalStack 4 listens on all interfaces whatever GATEWAY_LISTEN says, hence
	# the launcher.
	launch "$home" env -i \
		PATH="$PATH" HOME="$home/home" FILESYSTEM_ROOT="$home/data" \
		GATEWAY_LISTEN="127.0.0.1:$port" DNS_ADDRESS=0 SERVICES=sqs DISABLE_EVENTS=1 \
		SKIP_SSL_CERT_DOWNLOAD=1 SQS_ENDPOINT_STRATEGY=dynamic \
		SQS_DISABLE_CLOUDWATCH_METRICS=1 SQS_ENABLE_MESSAGE_RETENTION_PERIOD=1 \
		"$installed/bin/python" -c '
import functools
from twisted.internet import endpoints
endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")
from localstack.runtime.main import main
main()'
	await_sqs "$home" "http://127.0.0.1:$port"
	{
		printf 'export ANYQUEUE_TEST_SQS_LOCALSTACK=http://127.0.0.1:%s\n' "$port"
		printf 'export ANYQUEUE_TEST_PYTHON=%s\n' "$installed/bin/python"
	} >"$home/env"
}

up_elasticmq() {
	local home=$1 port=$2 installed
	cached "elasticmq-$ELASTICMQ_VERSION" install_elasticmq >"$home/install.log"
	# rest-stats is a web page on a port of its own, on all interfaces.
	cat >"$home/elasticmq.conf" <<-CONF
		include classpath("application.conf")
		node-address { protocol = http, host = "127.0.0.1", port = $port, context-path = "" }
		rest-sqs { enabled = true, bind-hostname = "127.0.0.1", bind-port = $port }
		rest-stats { enabled = false }
	CONF
	launch "$home" java -Xmx1g -Dconfig.file="$home/elasticmq.conf" \
		-cp "$installed/jars/*" org.elasticmq.server.Main
	await_sqs "$home" "http://127.0.0.1:$port"
	printf 'export ANYQUEUE_TEST_SQS_ELASTICMQ=http://127.0.0.1:%s\n' "$port" >"$home/env"
}

up_pubsub() {
	local home=$1 port=$2 jar installed python
	python=$(python_from 11 "Google's client for Python")
	cached_python "google-cloud-pubsub-$PUBSUB_PYTHON_VERSION" "$PUBSUB_PYTHON_PINS" install_pubsub_python >"$home/install.log"
	if ! jar=$(emulator_jar); then
		install_pubsub >>"$home/install.log"
		jar=$(emulator_jar) || die 'no Pub/Sub emulator, though its package is installed'
	fi
	# The jar itself, because stopping "gcloud beta emulators" leaves its JVM alive.
	# It keeps every message that it ever got. With less memory it stood still for seconds
	# near the end of a run, or failed calls, and tests that wait for it failed.
	launch "$home" java -Xmx3g -jar "$jar" --host=127.0.0.1 --port="$port"
	await_pubsub "$home" "127.0.0.1:$port"
	{
		printf 'export ANYQUEUE_TEST_PUBSUB_EMULATOR=127.0.0.1:%s\n' "$port"
		printf 'export ANYQUEUE_TEST_PUBSUB_JAR=%q\n' "$jar"
		printf 'export ANYQUEUE_TEST_PUBSUB_PYTHON=%s\n' "$installed/bin/python"
	} >"$home/env"
}

# ---- commands ------------------------------------------------------------------------------

ALL=(localstack elasticmq pubsub)

# up DIR SERVER...: do all of these run and answer?
up() {
	local dir=$1 server pid value
	shift
	for server; do
		alive "$dir/$server" && [[ -s $dir/$server/env ]] || return 1
		read -r value <"$dir/$server/env" # its endpoint is in the first line
		value=${value#*=}
		case $server in
		pubsub) await_pubsub "$dir/$server" "$value" ;;
		*) await_sqs "$dir/$server" "$value" ;;
		esac
	done
}

start() {
	local dir=$1 server tool i log failed='' begun=$SECONDS ports jobs=()
	shift
	local servers=("$@")
	if ((${#servers[@]} == 0)); then servers=("${ALL[@]}"); fi
	for server in "${servers[@]}"; do
		case $server in
		localstack | elasticmq | pubsub) ;;
		*) usage ;;
		esac
	done
	for tool in curl python3 java flock setsid; do
		command -v "$tool" >/dev/null || die "$tool is needed"
	done
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd)

	if (up "$dir" "${servers[@]}") 2>/dev/null; then
		say "already running: ${servers[*]}"
	else
		stop "$dir"
		# An interrupted start leaves nothing behind.
		trap 'trap "" INT TERM; kill "${jobs[@]}" 2>/dev/null; wait; stop "$dir"; exit 1' INT TERM
		read -ra ports <<<"$(free_ports "${#servers[@]}")"
		for i in "${!servers[@]}"; do
			server=${servers[i]}
			rm -rf "${dir:?}/$server"
			mkdir "$dir/$server"
			("up_$server" "$dir/$server" "${ports[i]}") 2>"$dir/$server/start.log" &
			jobs+=("$!")
		done
		for i in "${!servers[@]}"; do
			server=${servers[i]}
			if wait "${jobs[i]}"; then
				say "$server is ready on port ${ports[i]}"
				continue
			fi
			failed+=" $server"
			say "$server couldn't be started"
			for log in install.log start.log log; do
				[[ -s $dir/$server/$log ]] || continue
				printf -- '---- the end of %s\n' "$dir/$server/$log" >&2
				tail -n 40 "$dir/$server/$log" >&2
			done
		done
		trap - INT TERM
		if [[ -n $failed ]]; then
			stop "$dir"
			die "failed:$failed"
		fi
		say "all ready after $((SECONDS - begun)) s"
	fi
	for server in "${servers[@]}"; do cat "$dir/$server/env"; done >"$dir/env.new"
	mv "$dir/env.new" "$dir/env"
	cat "$dir/env"
}

stop() {
	local dir=$1 server jobs=() job status=0
	[[ -d $dir ]] || return 0
	dir=$(cd "$dir" && pwd)
	for server in "${ALL[@]}"; do
		[[ -d $dir/$server ]] || continue
		halt "$dir/$server" &
		jobs+=("$!")
	done
	for job in ${jobs[@]+"${jobs[@]}"}; do wait "$job" || status=1; done
	rm -f "$dir/env"
	return "$status"
}

usage() {
	say "usage: $0 start DIR [localstack] [elasticmq] [pubsub] | $0 stop DIR"
	exit 2
}

CACHE=${ANYQUEUE_CI_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/anyqueue-ci}
[[ $CACHE == /* ]] || CACHE=$PWD/$CACHE

case ${1-} in
start) [[ -n ${2-} ]] || usage ;;
stop) [[ -n ${2-} && $# == 2 ]] || usage ;;
*) usage ;;
esac
"$@"
