#!/bin/sh
# Makes the Secrets that the development Redis and PostgreSQL and the workers read, with drawn passwords.
# Usage: manifests/dev/create-secrets.sh [NAMESPACE]. What exists is left alone.
set -eu
namespace=${1:-astrid}
drawn() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
exists() { kubectl -n "$namespace" get secret "$1" >/dev/null 2>&1; }

kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"
if ! exists astrid-redis; then
  password=$(drawn)
  kubectl -n "$namespace" create secret generic astrid-redis \
    --from-literal=password="$password" --from-literal=url="redis://:$password@redis:6379/0"
fi
if ! exists astrid-postgres; then
  password=$(drawn)
  kubectl -n "$namespace" create secret generic astrid-postgres --from-literal=password="$password"
  kubectl -n "$namespace" create secret generic astrid-workers \
    --from-literal=ASTRID_DATABASE_URL="postgresql://astrid:$password@postgres:5432/astrid"
fi
