#!/bin/sh
# Slurm for the tests, from the system's package manager, without starting its services.
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
apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends \
	slurm-wlm munge >/dev/null
