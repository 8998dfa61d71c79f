"""Programs that run on the lab host itself: standard library only, ``python3 -m umlaan.agent``.

A fact or an operation calls them by name; they print JSON or progress lines. On a lab host over
ssh they arrive as one zip file, so nothing here may import what Debian's python3 does not bring.
"""
