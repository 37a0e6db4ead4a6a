//! What the tests of the store share.

#![allow(dead_code, unused_imports, reason = "every test program uses its part of this")]

pub(crate) mod private_redis;

pub(crate) use cipherscore_common::contract::fixtures::{
    bytes, key, lease, presence, read, tenant,
};
