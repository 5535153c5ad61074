"""A link between two processes that a test can cut, or fill with silence."""

import contextlib
import selectors
import socket
import threading


class Relay:
    """Passes bytes between whoever dials `port` and `target`, in a thread of its own, until it is told otherwise."""

    def __init__(self, target):
        self._target = ("127.0.0.1", target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._open = True  # lets new connections in
        self._ended = False
        self._lock = threading.Lock()
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self._open:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near, far):
        """Nothing is read while nothing may flow, so that what was sent arrives later, as over a real link."""
        other = {near: far, far: near}
        with selectors.DefaultSelector() as ready, contextlib.suppress(OSError, ValueError):
            for side in other:
                ready.register(side, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    self._flowing.wait()
                    data = key.fileobj.recv(65536)
                    if not data:
                        raise ConnectionResetError
                    self._flowing.wait()
                    other[key.fileobj].sendall(data)
        for side in other:
            side.close()

    def silence(self):
        """Connections stay, and nothing arrives."""
        self._flowing.clear()

    def cut(self):
        """Connections end, and new ones are refused."""
        self._open = False
        self._flowing.set()
        with self._lock:
            for pair in self._pairs:
                for side in pair:
                    with contextlib.suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
            self._pairs.clear()

    def heal(self):
        self._open = True
        self._flowing.set()

    def close(self):
        self._ended = True
        self._listener.close()
        self.cut()
