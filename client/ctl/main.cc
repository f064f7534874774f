// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iostream>

#include "client/ctl/command.h"

int main(int argc, char** argv) {
  return stoker::ctl::Run({argv + 1, argv + argc}, std::cout, std::cerr, ::isatty(STDOUT_FILENO) == 1,
                          ::isatty(STDERR_FILENO) == 1);
}
