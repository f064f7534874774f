// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shared/base/unique_fd.h"

namespace stoker::ctl {

// A child process spoken to by lines: its standard input and output are pipes, its standard error is ours. Move-only;
// for one thread.
class LineProcess {
 public:
  // NotFound when there is no such program.
  static absl::StatusOr<LineProcess> Start(const std::vector<std::string>& command);
  LineProcess(LineProcess&& other) noexcept;
  LineProcess& operator=(LineProcess&&) = delete;
  ~LineProcess();  // kills it, if it has not ended

  absl::Status WriteLine(const std::string& line);
  void CloseInput() { in_.reset(); }

  // The next line of its output, without the newline. OutOfRange at the end, DeadlineExceeded after `timeout`.
  absl::StatusOr<std::string> ReadLine(absl::Duration timeout);

  // Waits for its end; Internal when it was not exit 0.
  absl::Status Wait();

 private:
  LineProcess() = default;

  std::string name_;
  pid_t pid_ = -1;  // -1: waited for
  UniqueFd in_;
  UniqueFd out_;
  std::string buffer_;
};

}  // namespace stoker::ctl
