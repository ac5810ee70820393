"""A second process for the small files of large runs on this machine's disks (ADR 0020).

Of a small file most of the time goes into calls of the system, between which Python's lock changes hands: threads wait
for it, and for each other. What a second process does needs no lock of this one. It is never needed: what it can't do,
or doesn't do in time, the engine does itself, and so finds out what is the matter.
"""
