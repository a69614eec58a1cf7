//! A sender of C-STORE and C-ECHO.
