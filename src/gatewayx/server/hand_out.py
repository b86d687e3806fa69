"""What the master hands to its children: the settings, and what it has read of files, whenever they are others.

Theory of operation. The master alone reads files. What it finds goes to the children that live, each at its own pace
(server/reloading), and to those that are forked later with everything else that is the master's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gatewayx.config.settings import Settings
from gatewayx.server import reloading
from gatewayx.server.board import Reload
from gatewayx.server.certificates import Certificates
from gatewayx.server.children import Post
from gatewayx.server.places import Places
from gatewayx.server.tls_files import TlsFiles, job_server_context, read_tls_files
from gatewayx.server.token_file import TokenFile

logger = logging.getLogger("gatewayx")


class HandOut:
    """The settings and the files, as they are handed out.

    settings: those of the start. load: reads them again; raises SettingError. places: what the processes share. Raises
    StartError.
    """

    def __init__(self, settings: Settings, load: Callable[[], Settings], places: Places) -> None:
        self.settings = settings
        self._load = load
        self._places = places
        self._board = places.board
        self.tls = read_tls_files(settings)
        # For clients: made before any fork, so that all processes take up each other's sessions; None without TLS.
        self.certificates = None if self.tls.clients is None else Certificates(settings, self.tls.clients)
        # For job servers with TLS; None without any.
        self.context = job_server_context(self.tls.job_servers)
        self.tokens = TokenFile(settings.tokens, self._board)
        self._places.tell_tokens_apart(entry.name for entry in self.tokens.entries)
        # Whether children are to have something that they have not taken yet, and whether settings are part of that.
        self.is_handing_out = False
        self._hands_settings = False

    def look(self, now_s: float, posts: Sequence[Post]) -> None:
        """See whether files are others, which is told to those at these posts; now_s: by time.monotonic()."""
        if self.tokens.look(now_s):
            self._places.tell_tokens_apart(entry.name for entry in self.tokens.entries)
            self.is_handing_out = True
            for post in posts:
                post.needs_tokens()

    def pause_s(self, now_s: float) -> float:
        """How long the next look may wait."""
        return self.tokens.pause_s(now_s)

    def reload(self, posts: Sequence[Post]) -> bool:
        """Read the settings again, with all files, for those at these posts; whether they hold."""
        read = reloading.read_again(self.settings, self._load)
        if isinstance(read, Exception):
            self._board.reloaded(Reload.FAILED, str(read) or type(read).__name__)
            if isinstance(read, reloading.TokensError):
                self.tokens.refuse(str(read))
            return False
        settings, files = read
        self.settings = settings
        self._take_tls(files.tls)
        self.tokens.take(settings.tokens, files.tokens)
        self._places.id_keys = files.id_keys or (self._places.id_key,)
        self._places.tell_tokens_apart(entry.name for entry in self.tokens.entries)
        self._places.tell_apart(settings.function)
        self.is_handing_out = self._hands_settings = True
        for post in posts:
            post.needs_settings()
        return True

    def _take_tls(self, tls: TlsFiles) -> None:
        self.tls = tls
        if self.certificates is not None and tls.clients is not None:
            self.certificates.change(tls.clients)
        self.context = job_server_context(tls.job_servers)

    def hand_out(self, posts: Sequence[Post]) -> bool:
        """Send what is new to those at these posts who need it and can take it now; whether by this all have it."""
        if not self.is_handing_out:
            return False
        children = [post.child for post in posts if post.child is not None]
        for child in children:
            child.offer(self.settings, self.tokens.entries)
        if any(child.needs_settings or child.needs_tokens or child.takes_settings for child in children):
            return False
        self.is_handing_out = False
        hands_settings, self._hands_settings = self._hands_settings, False
        if not hands_settings:
            logger.info("all worker processes have the tokens")
        elif all(child.took_settings for child in children):
            self._board.reloaded(Reload.SUCCESSFUL)
            logger.info("all worker processes have the settings")
        else:
            reason = "not all worker processes have the settings: SIGHUP makes another attempt"
            self._board.reloaded(Reload.PARTLY, reason)
            logger.error("%s", reason)
        return True

    def stop(self) -> None:
        """Whoever has not taken yet what is new ends with what it has."""
        self.is_handing_out = False
