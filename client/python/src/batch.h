// SPDX-License-Identifier: Apache-2.0
// The batch that Python holds.
#pragma once

#include "client/python/src/bindings.h"
#include "stoker/batch.h"

namespace stoker::python {

using PyBatch = OfThisProcess<Batch>;

}  // namespace stoker::python
