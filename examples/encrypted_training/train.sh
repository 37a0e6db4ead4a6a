#!/bin/sh
# Trains a classifier on encrypted data, over the queue. See README.md beside this file.
#
# usage: train.sh [FOLDER]     keys, ciphertexts and tables go to FOLDER, or are not kept
#
# CIPHERSCORE is the program; CIPHERSCORE_BROKER_URL and CIPHERSCORE_REDIS_URL are the services.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
artifact=$here/../../testdata/concrete/sgd_training
: "${CIPHERSCORE:=$here/../../target/release/cipherscore}"
work=${1:-$(mktemp -d)}
mkdir -p "$work/models"
worker=

finish() {
    if [ -n "$worker" ]; then
        kill "$worker" 2>/dev/null || true
        wait "$worker" 2>/dev/null || true
    fi
    [ "$#" -eq 0 ] || rm -rf "$1"
}
if [ "$#" -eq 0 ]; then
    trap 'finish "$work"' EXIT
else
    trap finish EXIT
fi
trap 'exit 130' INT TERM

# The server side: a worker that has the function, and never a key that decrypts.
cp "$artifact/server.zip" "$work/models/"
id=$(sha256sum "$artifact/server.zip" | cut -d ' ' -f 1)
"$CIPHERSCORE" worker start --models "$work/models" --set health.listen= 2>"$work/worker.log" &
worker=$!

# The data owner: keys, four batches of four rows with their labels, and where training begins.
"$CIPHERSCORE" keygen --client "$artifact/client.zip" --keys "$work/keys"
"$CIPHERSCORE" encrypt --client "$artifact/client.zip" --keys "$work/keys" \
    --input "$artifact/x.csv" "$artifact/y.csv" "$artifact/weights.csv" "$artifact/bias.csv" \
    --output "$work/encrypted/"

until "$CIPHERSCORE" status --model "$id" | grep -q ' [1-9][0-9]* consumers'; do
    kill -0 "$worker" 2>/dev/null || { cat "$work/worker.log" >&2; exit 1; }
    sleep 1
done

# Training: the encrypted weights and bias of one iteration are inputs of the next.
weights=$work/encrypted/weights-000000.bin
bias=$work/encrypted/bias-000000.bin
for x in "$work"/encrypted/x-*.bin; do
    batch=${x##*/x-}
    batch=${batch%.bin}
    "$CIPHERSCORE" submit --model "$id" --evaluation-key "$work/keys/evaluation.key" \
        --timeout 1h --arguments 4 \
        --input "$x" "$work/encrypted/y-$batch.bin" "$weights" "$bias" \
        --output "$work/weights-$batch.bin" "$work/bias-$batch.bin"
    weights=$work/weights-$batch.bin
    bias=$work/bias-$batch.bin
done

# The data owner again.
"$CIPHERSCORE" decrypt --client "$artifact/client.zip" --keys "$work/keys" \
    --input "$weights" "$bias" --output "$work/weights.csv" "$work/bias.csv"

same() {
    paste -d , "$1" "$2" | awk -F , '
        NR > 1 && ($1 == "" || $2 == "" || $1 + 0 != $2 + 0) { wrong = 1 }
        END { exit wrong || NR < 2 }
    '
}
for name in weights bias; do
    same "$work/$name.csv" "$artifact/trained_$name.csv" || {
        echo "$name differ from those of training without encryption" >&2
        exit 1
    }
done
echo "weights: $(tail -n +2 "$work/weights.csv" | tr '\n' ' ')bias: $(tail -n +2 "$work/bias.csv")"
awk -F , '
    FNR == 1 { file++; next }
    file == 1 { weight[FNR - 1] = $1 }
    file == 2 { bias = $1 }
    file == 3 {
        sum = bias
        for (i = 1; i < NF; i++) sum += weight[i] * $i
        rows++
        right += (sum > 0) == ($NF > 0)
    }
    END { print right " of " rows " rows are classified as their labels say" }
' "$work/weights.csv" "$work/bias.csv" "$artifact/rows.csv"
echo "equal to training without encryption"
