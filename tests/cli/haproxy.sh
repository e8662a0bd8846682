# Two servers behind packaging/haproxy.cfg, one of which is killed under load: haproxy.sh QUERN MODEL CONFIG
set -u
quern=$1 model=$2 config=$3
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
one=$(port) two=$(port) front=$(port)
"$quern" serve "$model" --port "$one" --access-log none >one.log 2>&1 & first=$!
"$quern" serve "$model" --port "$two" --access-log none >two.log 2>&1 & second=$!
QUERN_PORT=127.0.0.1:$front QUERN_SERVER_1=127.0.0.1:$one QUERN_SERVER_2=127.0.0.1:$two haproxy -f "$config" >haproxy.log 2>&1 & proxy=$!
trap 'kill $second $proxy 2>/dev/null; kill -9 $first 2>/dev/null' EXIT
for _ in $(seq 100); do
  curl -sf "127.0.0.1:$one/ready" >/dev/null && curl -sf "127.0.0.1:$two/ready" >/dev/null && curl -sf "127.0.0.1:$front/ready" >/dev/null && break
  sleep 0.1
done
system=$(printf 'You answer briefly. %.0s' $(seq 60))
ask() { # number of the prefix, number of the question
  curl -s -o /dev/null -w '%{http_code}\n' "127.0.0.1:$front/v1/chat/completions" -H 'Content-Type: application/json' \
    -d "{\"messages\": [{\"role\": \"system\", \"content\": \"$1 $system\"}, {\"role\": \"user\", \"content\": \"Question $2\"}], \"max_tokens\": 3}"
}
sum() { curl -s "127.0.0.1:$1/metrics" | awk -v n="$2" '$0 ~ "^"n"[{ ]" {s += $NF} END {print s + 0}'; }
for question in 1 2 3 4 5; do for prefix in a b c d e f; do ask $prefix $question; done; done >before.txt
p=$(($(sum $one quern_prompt_tokens_total) + $(sum $two quern_prompt_tokens_total)))
c=$(($(sum $one quern_cached_tokens_total) + $(sum $two quern_cached_tokens_total)))
echo "one $(sum $one quern_prompt_tokens_total) two $(sum $two quern_prompt_tokens_total)"
(for question in 6 7 8 9; do for prefix in a b c d e f; do ask $prefix $question; done; done >after.txt) & load=$!
sleep 0.5; kill -9 $first; wait $load
echo "hits $((100 * c / p)) %"
echo "before $(grep -c 200 before.txt) of $(wc -l <before.txt)"
echo "after $(grep -c 200 after.txt) of $(wc -l <after.txt)"
