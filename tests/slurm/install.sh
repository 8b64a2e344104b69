#!/bin/sh
# Slurm for the tests, from the system's package manager, without starting its services.
# Where it cannot be installed this says so, and the tests are skipped.
command -v slurmctld >/dev/null 2>&1 && command -v slurmd >/dev/null 2>&1 && exit 0
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
	echo "The tests on a real Slurm need root and apt-get; they will be skipped." >&2
	exit 0
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
# Another apt-get may be at work, and lists that cannot be renewed may still do.
export DEBIAN_FRONTEND=noninteractive
wait="-o DPkg::Lock::Timeout=300"
apt-get update $wait --quiet=2 </dev/null || true
apt-get install $wait --yes --quiet=2 --no-install-recommends slurm-wlm munge \
	</dev/null >/dev/null ||
	echo "Slurm cannot be installed here; the tests on it will be skipped." >&2
