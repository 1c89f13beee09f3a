//! The shell: sockets, files, clock, tasks.
