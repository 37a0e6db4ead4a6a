#!/bin/sh
# Checks the chart, without a cluster and without the program helm: Helm's own code comes as a
# Python package. Needs Python 3.11 or later and PyPI; by hand, it takes half a minute.
#
#     deploy/helm/check.sh
#     deploy/helm/check.sh --worker target/release/cipherscore-worker \
#         --crd keda.sh_scaledobjects.yaml --crd keda.sh_triggerauthentications.yaml \
#         --crd monitoring.coreos.com_servicemonitors.yaml
#
# The files of --crd are in the repositories of KEDA (config/crd/bases) and of the Prometheus
# operator (example/prometheus-operator-crd).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" --quiet --disable-pip-version-check install \
    helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 jsonschema==4.26.0 PyYAML==6.0.3
"$folder/bin/python" "$here/check.py" "$@"
