//! A small server on loopback, for what is reached through a port-forward: it answers HTTP with the path, and sends other bytes back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Starts the server and returns its port. It lives as long as this process.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(stream: TcpStream) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    let is_http = input.fill_buf().is_ok_and(|first| first.starts_with(b"GET "));
    let _ = if is_http { http(&mut input, &mut out) } else { echo(&mut input, &mut out) };
}

fn http(input: &mut BufReader<TcpStream>, out: &mut TcpStream) -> std::io::Result<()> {
    let mut request = String::new();
    input.read_line(&mut request)?;
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 && line != "\r\n" {
        line.clear();
    }
    let body = format!("hello from {}\n", request.split(' ').nth(1).unwrap_or("/"));
    write!(out, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn echo(input: &mut BufReader<TcpStream>, out: &mut TcpStream) -> std::io::Result<()> {
    let mut part = [0; 16 * 1024];
    loop {
        match input.read(&mut part)? {
            0 => return Ok(()),
            read => out.write_all(&part[..read])?,
        }
    }
}
