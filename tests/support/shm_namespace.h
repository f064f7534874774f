// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/support/child_process.h"

namespace stoker::testing {

// Why this kernel, or this container, gives no mount namespace to a test; empty when it does. Tests that need one say
//
//   if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
std::string ShmNamespaceSkipReason();

// Puts the calling process, which has one thread, into a mount namespace of its own (and a user namespace, in which it
// is root, when it may not make one otherwise) with an empty tmpfs of `shm_bytes` over /dev/shm. What happens to that
// tmpfs is seen by nobody else and gone with the process. Returns an error text, empty when done.
std::string EnterShmNamespace(uint64_t shm_bytes);

// Runs `body` in a forked child after EnterShmNamespace; exits 1 when that fails. See ChildProcess.
ChildResult RunInShmNamespace(uint64_t shm_bytes, const std::function<void(int out)>& body);

}  // namespace stoker::testing
