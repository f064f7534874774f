// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iostream>

#include "absl/synchronization/mutex.h"
#include "client/ctl/command.h"

int main(int argc, char** argv) {
#ifdef NDEBUG  // some builds of Abseil, Debian's among them, look for lock cycles at every lock in release builds too
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  return stoker::ctl::Run({argv + 1, argv + argc}, std::cout, std::cerr, ::isatty(STDOUT_FILENO) == 1,
                          ::isatty(STDERR_FILENO) == 1);
}
