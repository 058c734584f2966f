//! The whole product, tested from outside: the tests are in `it/`, the rules of the house in `house/`.
