// SPDX-License-Identifier: Apache-2.0
// stoker-worker: one worker process. stokerd starts it with a socket as descriptor 3; by hand it only measures this
// machine.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "server/workers/benchmark.h"
#include "server/workers/worker.h"
#include "shared/base/version.h"

int main(int argc, char** argv) {
  CLI::App app("One worker process of stokerd, which starts it. By hand: stoker-worker --benchmark");
  app.set_version_flag("--version", stoker::kVersion);
  int nice = 0;
  int parent = 0;
  bool benchmark = false;
  stoker::workers::BenchmarkOptions options;
  app.add_option("--nice", nice, "Add to the process's niceness");
  app.add_option("--parent", parent, "Process id of the stokerd that started this");
  app.add_flag("--benchmark", benchmark,
               "Measure memory and transforms of this machine; JSON lines on standard output");
  app.add_option("--mib", options.mib, "For --benchmark: MiB of shared memory to write to")
      ->check(CLI::Range(8, 65536));
  app.add_option("--threads", options.threads, "For --benchmark: also measure the limit with so many threads")
      ->check(CLI::Range(1, 1024));
  app.add_option("--repeats", options.repeats, "For --benchmark: passes a row")->check(CLI::Range(1, 101));
  app.add_flag("--all-paths", options.all_paths, "For --benchmark: every instruction set that this processor has");
  CLI11_PARSE(app, argc, argv);
  if (benchmark) {
    const absl::Status status = stoker::workers::RunBenchmark(options, std::cout);
    if (status.ok()) return 0;
    std::cerr << "stoker-worker: benchmark: " << status.message() << "\n";
    return status.code() == absl::StatusCode::kResourceExhausted ? 5 : 70;
  }
  if (parent == 0) {
    std::cerr << "stoker-worker: is started by stokerd; by hand, use --benchmark\n";
    return 2;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) return 0;  // it died before the line above
  ::prctl(PR_SET_NAME, "stoker-worker");
  ::signal(SIGINT, SIG_IGN);  // a Ctrl-C in the terminal is the daemon's to handle
  ::signal(SIGTERM, SIG_IGN);
  if (nice != 0) ::setpriority(PRIO_PROCESS, 0, nice);
  constexpr int kWorkerSocket = 3;
  stoker::workers::Worker(stoker::UniqueFd(kWorkerSocket)).Run();
  return 0;
}
