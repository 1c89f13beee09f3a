//! `HeaderValue`: the only text that may become a header upstream.
