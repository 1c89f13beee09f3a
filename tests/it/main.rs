//! In-process tests: the structure of the tree, golden files, and the app with its real parts but Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod ads;
mod answers;
mod authentication_config;
mod check_envoy;
mod config_errors;
mod crds;
mod decisions;
mod defences;
mod envoy_resources;
mod ext_authz;
mod ext_authz_answers;
mod ext_authz_gone;
mod fixture;
mod fuzz_corpus;
mod identities;
mod limits;
mod live_reload;
mod managed_envoy;
mod manifests;
mod many;
mod mappings;
mod mutual_tls;
mod nodes;
mod policy_explain;
mod security_document;
mod sessions_at_rest;
mod structure;
mod web;
mod web_pages;
mod xds_client;
mod xds_conformance;
mod xds_hostile;
mod xds_maker;
