"""pyinfra runs on gevent; its patches must come before anything opens a socket or a lock."""

from gevent import monkey

monkey.patch_all()
