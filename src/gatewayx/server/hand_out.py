"""What the master hands to its children: the settings, and what it has read of files, whenever they are others.

Theory of operation. The master alone reads files. What it finds goes to the children that live, each at its own pace
(server/reloading), and to those that are forked later with everything else that is the master's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.net.pem import NoRoomError
from gatewayx.server import reloading
from gatewayx.server.board import Reload
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.children import Post
from gatewayx.server.expiry import Expiry
from gatewayx.server.places import Places
from gatewayx.server.renewals import FOR_CLIENTS, FOR_JOB_SERVERS
from gatewayx.server.tls_files import TlsFiles
from gatewayx.server.token_file import FOR_TOKENS, NO_TOKENS, read_tokens
from gatewayx.server.watched_files import WatchedFiles

logger = logging.getLogger("gatewayx")

# What is handed out, as the log names it.
SETTINGS = "settings"
TOKENS = "tokens"
CERTIFICATES = "certificates"


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
        files = reloading.read_tls_files(settings)
        self._for_clients = WatchedFiles(FOR_CLIENTS, self._board.client_certificates, settings, files.clients)
        self._for_job_servers = WatchedFiles(
            FOR_JOB_SERVERS, self._board.job_server_certificates, settings, files.job_servers
        )
        # Made before any fork, so that all processes take up each other's sessions.
        self.tls = TlsContexts(settings, files)
        self._expiry = Expiry()
        self._expiry.read(self.tls.files)
        self._tokens = WatchedFiles(FOR_TOKENS, self._board.tokens, settings, read_tokens(settings))
        self._places.tell_tokens_apart(entry.name for entry in self.tokens)
        # Whether children are to have something that they have not taken yet, and what.
        self.is_handing_out = False
        self._hands: set[str] = set()
        # Whether files hold something of which no contexts were made yet.
        self._has_new_tls = False

    @property
    def tokens(self) -> tuple[TokenEntry, ...]:
        """Those that are good."""
        return self._tokens.held or NO_TOKENS

    def look(self, now_s: float, posts: Sequence[Post]) -> None:
        """See whether files are others, which is told to those at these posts; now_s: by time.monotonic()."""
        found = set()
        if self._tokens.look(now_s):
            self._places.tell_tokens_apart(entry.name for entry in self.tokens)
            found.add(TOKENS)
        # Both look.
        self._has_new_tls |= self._for_clients.look(now_s) | self._for_job_servers.look(now_s)
        if self._has_new_tls and self._take_tls():
            found.add(CERTIFICATES)
        self._expiry.look()
        if found:
            self._hands |= found
            self.is_handing_out = True
            for post in posts:
                post.needs_files()

    def _take_tls(self) -> bool:
        """Make contexts of what the files hold; False if there is no room for them yet, which the next look is for."""
        self._has_new_tls = True
        try:
            self.tls.change(TlsFiles(self._for_clients.held, self._for_job_servers.held))
        except NoRoomError as error:
            logger.warning("the master has no room yet for new certificates: %s", error)
            return False
        self._has_new_tls = False
        self._expiry.read(self.tls.files)
        return True

    def pause_s(self, now_s: float) -> float:
        """How long the next look may wait."""
        return min(watched.pause_s(now_s) for watched in (self._tokens, self._for_clients, self._for_job_servers))

    def reload(self, posts: Sequence[Post]) -> bool:
        """Read the settings again, with all files, for those at these posts; whether they hold."""
        read = reloading.read_again(self.settings, self._load)
        if isinstance(read, Exception):
            self._board.reloaded(Reload.FAILED, str(read) or type(read).__name__)
            if isinstance(read, reloading.TokensError):
                self._tokens.refuse(str(read))
            elif isinstance(read, reloading.ClientFilesError):
                self._for_clients.refuse(str(read))
            elif isinstance(read, reloading.JobServerFilesError):
                self._for_job_servers.refuse(str(read))
            return False
        settings, files = read
        self.settings = settings
        self._for_clients.take(settings, files.tls.clients)
        self._for_job_servers.take(settings, files.tls.job_servers)
        self._take_tls()
        self._tokens.take(settings, files.tokens)
        self._places.id_keys = files.id_keys or (self._places.id_key,)
        self._places.tell_tokens_apart(entry.name for entry in self.tokens)
        self._places.tell_apart(settings.function)
        self.is_handing_out = True
        self._hands.add(SETTINGS)
        for post in posts:
            post.needs_settings()
        return True

    def hand_out(self, posts: Sequence[Post]) -> bool:
        """Send what is new to those at these posts who need it and can take it now; whether by this all have it."""
        if not self.is_handing_out:
            return False
        children = [post.child for post in posts if post.child is not None]
        told_alone = self.tls.files.without_client_keys()
        for post in posts:
            if post.child is not None:
                files = self.tls.files if post.serves_clients else told_alone
                post.child.offer(self.settings, self.tokens, files)
        if any(child.needs_settings or child.needs_files or child.takes_settings for child in children):
            return False
        self.is_handing_out = False
        handed, self._hands = self._hands, set()
        if SETTINGS not in handed:
            self._tell_files(handed, taken=all(child.took_files for child in children))
        elif all(child.took_settings for child in children):
            self._board.reloaded(Reload.SUCCESSFUL)
            logger.info("all worker processes have the settings")
        else:
            reason = "not all worker processes have the settings: SIGHUP makes another attempt"
            self._board.reloaded(Reload.PARTLY, reason)
            logger.error("%s", reason)
        return True

    def _tell_files(self, handed: set[str], *, taken: bool) -> None:
        for what in sorted(handed):
            if taken:
                logger.info("all worker processes have the %s", what)
            else:
                logger.error("not all worker processes have the %s: SIGHUP makes another attempt", what)
        if not taken and CERTIFICATES in handed:
            for record in (self._board.client_certificates, self._board.job_server_certificates):
                if record.result is not Reload.NONE:
                    record.told(Reload.PARTLY, "not all worker processes have the certificates")

    def leave_client_keys(self) -> None:
        """In a child that shows clients nothing: let go of the keys for that."""
        self._for_clients.leave()
        self._expiry = Expiry()
        self.tls.leave_clients()

    def stop(self) -> None:
        """Whoever has not taken yet what is new ends with what it has."""
        self.is_handing_out = False
