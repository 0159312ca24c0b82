"""One program for each user and display: a second start hands its files to the running one, through a local socket.

The socket lies in the folder that the desktop keeps for this user alone, may be used by nobody else, and is spoken to
only where it belongs to us. A message is its length in four bytes and then parts with zero bytes between them: `OURS`,
what the desktop gave the second start, so that its window may come to the front, and the absolute paths, as the file
system has them. The answer is `TAKEN`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QCryptographicHash, QLockFile, QObject, QStandardPaths
from PySide6.QtGui import QGuiApplication
from PySide6.QtNetwork import QLocalServer, QLocalSocket

from gui import resources

PATIENCE = 2000
"""Milliseconds to wait for an answer: a program that hangs must not keep others from starting."""
MAX_BYTES = 1 << 20
OURS, TAKEN = b"walkscope 1", b"taken"
_HEAD = 4


def address() -> str:
    """The socket of this user, on this display, for the program that is installed here."""
    display = (os.environ.get("WAYLAND_DISPLAY", ""), os.environ.get("DISPLAY", ""))
    whose = "\0".join([str(resources.RESOURCES), QGuiApplication.platformName(), *display])
    folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.RuntimeLocation)
    digest = QCryptographicHash.hash(os.fsencode(whose), QCryptographicHash.Algorithm.Sha256)
    return str(Path(folder) / f"walkscope-{digest.data().hex()[:16]}")


def encode(paths: Sequence[str]) -> bytes:
    token = os.environ.get("XDG_ACTIVATION_TOKEN", "")
    body = b"\0".join((OURS, *(os.fsencode(part) for part in (token, *map(os.path.abspath, paths)))))
    return len(body).to_bytes(_HEAD, "big") + body


def decode(body: bytes) -> list[str]:
    """The paths in a message. Raises ValueError for what is none."""
    ours, token, *paths = body.split(b"\0")
    if ours != OURS or not all(os.path.isabs(path) for path in paths):
        raise ValueError("it is not a message of this program")
    if token:
        # Qt reads it when a window asks to come to the front.
        os.environ["XDG_ACTIVATION_TOKEN"] = os.fsdecode(token)
    return [os.fsdecode(path) for path in paths]


class Instance(QObject):
    """This start of the program. Where it is the first, ``wanted(paths)`` gets the files of each later one."""

    def __init__(self, wanted: Callable[[list[str]], object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._wanted = wanted
        self._address = address()
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connection)

    def hand_over(self, paths: Sequence[str]) -> bool:
        """Whether a running program took ``paths``. Where none did, this is the one that runs from now on."""
        turn = QLockFile(f"{self._address}.lock")  # of two that start at once, one finds the other
        turn.setStaleLockTime(PATIENCE)
        turn.tryLock(2 * PATIENCE)
        try:
            if _given(self._address, encode(paths)):
                return True
            # Nobody answered: the socket, if there is one, was left by a program that was killed.
            QLocalServer.removeServer(self._address)
            self._server.listen(self._address)
            return False
        finally:
            turn.unlock()

    def _on_connection(self) -> None:
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.setParent(self)
            socket.disconnected.connect(socket.deleteLater)
            socket.readyRead.connect(lambda socket=socket: self._read(socket))
            self._read(socket)

    def _read(self, socket: QLocalSocket) -> None:
        """Take the message once all of it is there; whoever sends something else is not listened to."""
        head = bytes(socket.peek(_HEAD).data())
        if len(head) < _HEAD:
            return
        size = int.from_bytes(head, "big")
        if size > MAX_BYTES:
            socket.abort()
        elif socket.bytesAvailable() >= _HEAD + size:
            try:
                paths = decode(bytes(socket.read(_HEAD + size).data())[_HEAD:])
            except ValueError:
                socket.abort()
                return
            socket.write(TAKEN)
            socket.flush()
            self._wanted(paths)


def _given(address: str, message: bytes) -> bool:
    """Whether the program that listens at ``address`` is ours, and took ``message``."""
    if not _is_ours(address):
        return False
    socket = QLocalSocket()
    socket.connectToServer(address)
    if not socket.waitForConnected(PATIENCE):
        return False
    socket.write(message)
    socket.waitForBytesWritten(PATIENCE)
    socket.waitForReadyRead(PATIENCE)
    return bytes(socket.readAll().data()) == TAKEN


def _is_ours(address: str) -> bool:
    """Whether the socket belongs to this user. Windows keeps no files for pipes, and lets only their user open them."""
    if not hasattr(os, "getuid"):
        return True
    try:
        return os.lstat(address).st_uid == os.getuid()
    except OSError:
        return False
