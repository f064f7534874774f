// SPDX-License-Identifier: Apache-2.0
// The batch that Python holds.
#pragma once

#include <nanobind/ndarray.h>

#include "client/python/src/bindings.h"
#include "stoker/batch.h"

namespace stoker::python {

using PyBatch = OfThisProcess<Batch>;

nb::dlpack::dtype TypeOf(v1::DType dtype);

}  // namespace stoker::python
