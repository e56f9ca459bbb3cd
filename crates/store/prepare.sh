#!/usr/bin/env bash
# Regenerates crates/store/.sqlx, the data with which the queries are checked
# at compile time without a database. DATABASE_URL must name a scratch database
# on a running Postgres 15 or newer; its schema `rejoin` is dropped.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${DATABASE_URL:?a scratch database}"
psql "$DATABASE_URL" -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning; DROP SCHEMA IF EXISTS rejoin CASCADE'
for migration in migrations/[0-9]*.sql; do
    psql "$DATABASE_URL" -q -v ON_ERROR_STOP=1 -1 -f "$migration"
done
rm -rf crates/store/.sqlx
mkdir crates/store/.sqlx
touch crates/store/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$PWD/crates/store/.sqlx" cargo check -p store --all-targets
