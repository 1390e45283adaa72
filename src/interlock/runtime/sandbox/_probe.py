"""What a sandbox has to show before it is used: a program that is run inside and looks for ways out.

It prints ``isolated``, or what it could do that it must not.
"""

PROBE = """
import os, socket, sys
marker = sys.argv[1]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found = []
if os.path.exists(marker): found.append("it sees the files of this machine")
if os.getppid() != 1: found.append("it is in no PID namespace of its own")
if any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")): found.append("it has capabilities")
if status["NoNewPrivs"].strip() != "1": found.append("it can gain privileges")
if status["Seccomp"].strip() != "2": found.append("no system call is refused")
interfaces = [line.split(":")[0].strip() for line in open("/proc/self/net/dev").readlines()[2:]]
if set(interfaces) - {"lo"}: found.append("it sees network interfaces")
if set(os.environ) - {"PATH", "HOME", "LANG", "LC_CTYPE"}: found.append("it sees the environment")
if open("/proc/self/oom_score_adj").read().strip() != "1000": found.append("it is not the first to go without memory")
for folder in ("/", "/usr", "/dev", "/proc/sys/kernel"):
    if os.access(folder, os.W_OK): found.append(f"it can write to {folder}")
for family in (socket.AF_UNIX, socket.AF_VSOCK):
    try: socket.socket(family).close()
    except OSError: pass
    else: found.append(f"it can make a socket of {family.name}")
print("; ".join(found) or "isolated")
"""
