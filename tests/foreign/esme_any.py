"""A gateway made with python-smpplib that takes and answers every request, and sends any bytes, over JSON lines.

{"do": "raw", "bytes": "hex"}   {"do": "stop"}

{"event": "bound"}   {"event": "request", "pdu": {...}}
{"event": "response", "command": "submit_sm_resp", "status": 0}

`decoded` is what the package makes of a PDU, bytes in hex; the fuzzer uses it as well. A command that the package does
not know is told by its number, and answered without a body.
"""

import json
import logging
import select
import struct
import sys

import smpplib.client
import smpplib.command
import smpplib.exceptions
import smpplib.smpp

HEADER = struct.Struct(">4L")
RESPONSE = 0x80000000


class Silent:
    """Stands for the client where PDUs are made without a connection."""

    sequence = 0

    def next_sequence(self):
        return 1


def decoded(frame):
    """What the package sees in a request, but for the sequence number. Raises whatever the package raises."""
    _, command, status, _ = HEADER.unpack_from(frame)
    try:
        pdu = smpplib.smpp.parse_pdu(frame, client=Silent(), allow_unknown_opt_params=True)
    except smpplib.exceptions.UnknownCommandError:
        return {"command": command, "status": status}
    fields = {name: getattr(pdu, name, None) for name in pdu.params}
    shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
    return {"command": pdu.command, "status": int(pdu.status), **shown}


def tell(**event):
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


class Gateway:
    def __init__(self, port, system_id, password):
        logging.disable()  # a line for each TLV that it has no name for
        self.client = smpplib.client.Client("127.0.0.1", port, allow_unknown_opt_params=True)
        self.client.connect()
        self.client.bind_transceiver(system_id=system_id, password=password)
        self._socket = self.client._socket
        tell(event="bound")

    def read(self):
        frame = self._exactly(HEADER.size)
        length, command, status, sequence = HEADER.unpack(frame)
        frame += self._exactly(length - HEADER.size)
        pdu = decoded(frame)
        if command & RESPONSE:
            tell(event="response", command=pdu["command"], status=status)
            return
        if pdu["command"] != "enquire_link":
            tell(event="request", pdu=pdu)
        if pdu["command"] == "alert_notification":
            return
        body = b"\0" if pdu["command"] in ("deliver_sm", "data_sm") else b""
        self._socket.sendall(HEADER.pack(HEADER.size + len(body), command | RESPONSE, 0, sequence) + body)

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the connection has ended")
            data += more
        return data

    def play(self):
        """Serve the socket and standard input, until told to stop."""
        while True:
            readable, _, _ = select.select([self._socket, sys.stdin.buffer], [], [])
            if self._socket in readable:
                self.read()
            if sys.stdin.buffer in readable:
                command = json.loads(sys.stdin.buffer.raw.readline() or b'{"do": "stop"}')
                if command["do"] == "stop":
                    return
                self._socket.sendall(bytes.fromhex(command["bytes"]))


if __name__ == "__main__":
    gateway = Gateway(int(sys.argv[1]), *sys.argv[2:])
    try:
        gateway.play()
    finally:
        gateway.client.unbind()
        gateway.client.disconnect()
