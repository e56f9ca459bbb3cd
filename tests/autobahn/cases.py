"""The cases of the Autobahn test suite, made to run under Python 3.

They are Python 2 and hold bytes in its `str`. Read as Latin-1 each byte is one character, so that Python 3's `str`
does the same; the fuzzer encodes it on the way out. What else differs is rewritten line by line.
"""

import binascii
import codecs
import pathlib
import re
import sys
import tempfile
import types

# What Python 3 reads differently: a pattern and what it becomes.
REWRITTEN = [
    # The fuzzer's statements that print are about its own self-test.
    (r"(?m)^(\s*)print .*$", r"\1pass"),
    # A class before its base's base cannot be ordered.
    (r"\(object, Case, \)", "(Case, )"),
    # The frames that were sent are counted in whole ones.
    (r"len\(self\.payload\) / ", "len(self.payload) // "),
    # Equal values need not be pickled equally.
    (r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2"),
    (r"import binascii", "import bytes_of_text as binascii"),
    # Compression is not offered.
    (r"(?m)^from case12_x_x import \*$|^.*Case1[23]_X_X.*$", ""),
    # Written for Twisted, and not among the cases that the suite runs itself.
    (r"(?m)^from case9_9_1 import \*$", ""),
]


class Utf8Validator:
    """Of the suite's library, as far as its cases use it: is this valid, and does it end with a whole character?"""

    def reset(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def validate(self, text):
        try:
            self.decoder.decode(text.encode("latin-1"))
        except UnicodeDecodeError:
            return False, False
        return True, self.decoder.getstate()[0] == b""


class WebSocketProtocol:
    """The constants that cases take from the suite's library."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_GOING_AWAY = 1001
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007


def load(folder):
    """Every case class of the suite, in its order, and the names of its groups."""
    provide("autobahn")
    provide("autobahn.websocket")
    provide("autobahn.websocket.protocol", WebSocketProtocol=WebSocketProtocol)
    provide("autobahn.websocket.utf8validator", Utf8Validator=Utf8Validator)
    provide("bytes_of_text", b2a_hex=lambda text: binascii.b2a_hex(text.encode("latin-1")).decode())
    rewritten = tempfile.TemporaryDirectory()
    for source in pathlib.Path(folder).glob("*.py"):
        name = "suite.py" if source.name == "__init__.py" else source.name
        text = source.read_text(encoding="latin-1")
        for pattern, replacement in REWRITTEN:
            text = re.sub(pattern, replacement, text)
        # Names that Python 3 has under another one.
        text = "xrange, unichr = range, chr\n" + text
        pathlib.Path(rewritten.name, name).write_text(text, encoding="utf-8")
    sys.path.insert(0, rewritten.name)
    try:
        import suite
    finally:
        sys.path.remove(rewritten.name)
        rewritten.cleanup()
    return suite.Cases, suite.CaseCategories


def provide(name, **contents):
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module
