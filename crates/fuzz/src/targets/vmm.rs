//! What QEMU and the guest's agent say.

use super::texts;

pub fn monitors() -> Vec<Vec<u8>> {
    texts(&[
        "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}, \"id\": 1}\n",
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}, \"timestamp\": {\"seconds\": 1}}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 18446744073709551615}\n",
    ])
}

pub fn agents() -> Vec<Vec<u8>> {
    texts(&[
        "\0{\"return\": {}}\n{\"return\": {\"version\": \"7.2\"}}\n{\"return\": {\"pid\": 5}}\n\
         {\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"aGVsbG8=\"}}\n",
        "\0{\"error\": {\"class\": \"x\", \"desc\": \"no\"}}\n{\"return\": {\"pid\": -1}}\n",
        "\x01stale\n{\"return\": 7}\n",
    ])
}

pub fn texts_of_base64() -> Vec<Vec<u8>> {
    texts(&["aGVsbG8=", "aGk=", "YQ==", "aG Vs\nbG8="])
}

/// Words, with zeros between them.
pub fn orders() -> Vec<Vec<u8>> {
    [
        "--parent 5 --uid 1000 --gid 1000 --cwd / --read /usr --port 80 -- qemu -x",
        "--network 1 --connect 0 --limit-memory 1 --fds 3 --first-fd 3 -- a",
    ]
    .map(|words| words.replace(' ', "\0").into_bytes())
    .into()
}
